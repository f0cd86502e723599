/* How much memory experts may take. */
#include "base/os.h"
#include "experts/pool.h"

#define LEAST_LEFT ((uint64_t)64 << 20)

uint64_t pool_budget_within(uint64_t memory_bytes, uint64_t all_bytes, uint64_t other_bytes)
{
    uint64_t left = memory_bytes / 8 > LEAST_LEFT ? memory_bytes / 8 : LEAST_LEFT;
    if (memory_bytes <= left || memory_bytes - left <= other_bytes)
        return 0;
    uint64_t room = memory_bytes - left - other_bytes, most = all_bytes + all_bytes / 64 + ((uint64_t)16 << 20);
    return room < most ? room : most;
}

uint64_t pool_budget_auto(uint64_t all_bytes, uint64_t other_bytes)
{
    return pool_budget_within(os_memory_bytes(), all_bytes, other_bytes);
}
