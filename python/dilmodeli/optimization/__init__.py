"""CPU ve bellek. (The CPU optimizer and memory strategies.)"""

from .bellek_stratejisi import BellekPlani, BellekStratejisi
from .cpu_optimizer import CPUOptimizer, MakineBilgisi, MakineHizi, Profil

__all__ = ["BellekPlani", "BellekStratejisi", "CPUOptimizer", "MakineBilgisi", "MakineHizi", "Profil"]
