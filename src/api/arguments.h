/* What every public call does with its arguments first. */
#ifndef API_ARGUMENTS_H
#define API_ARGUMENTS_H

#include <string.h>

#include "base/status.h"

/* Copies a versioned option struct: fields the caller's header did not have keep their defaults. */
static inline dil_status take_options(void *own, size_t own_size, const void *given, uint32_t given_size, const char *what,
                                      dil_error *err)
{
    if (!given)
        return DIL_OK;
    if (given_size < sizeof(uint32_t) || given_size > 4096)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: struct_size: wanted what %s_default sets, found %u", what, what, given_size);
    memcpy(own, given, given_size < own_size ? given_size : own_size);
    return DIL_OK;
}

static inline dil_status need(const void *p, const char *what, dil_error *err)
{
    return p ? DIL_OK : DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: wanted a value, found NULL", what);
}

/* A struct of the caller's that is to be filled says how far it reaches; all begin with struct_size. */
static inline dil_status need_struct(const void *out, size_t own_size, const char *what, dil_error *err)
{
    uint32_t size;
    DIL_TRY(need(out, what, err));
    memcpy(&size, out, sizeof size);
    if (size < sizeof size || size > 4096)
        return DIL_FAIL(err, DIL_BAD_ARGUMENT, "%s: struct_size: wanted %zu, found %u", what, own_size, size);
    return DIL_OK;
}

/* Fills it; need_struct came before. What it had said of its size stays. */
static inline void give_struct(void *out, const void *own, size_t own_size)
{
    uint32_t size;
    memcpy(&size, out, sizeof size);
    memcpy(out, own, size < own_size ? size : own_size);
    memcpy(out, &size, sizeof size);
}

#endif
