"""Görseller: sürü ve metrikler. (Pictures of the flock and of metrics.)"""

from .metrik_visualizer import MetrikVisualizer
from .suru_visualizer import SuruVisualizer

__all__ = ["MetrikVisualizer", "SuruVisualizer"]
