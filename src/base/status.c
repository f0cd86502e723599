#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *(*translator)(const char *text);

void status_translate_with(const char *(*translate)(const char *text)) { translator = translate; }
const char *status_text(const char *text) { return translator ? translator(text) : text; }

dil_status status_fail(dil_error *err, dil_status code, const char *format, ...)
{
    if (err) {
        va_list args;
        err->code = code;
        va_start(args, format);
        vsnprintf(err->text, sizeof err->text, status_text(format), args);
        va_end(args);
    }
    return code;
}

dil_status status_prefix(dil_error *err, const char *format, ...)
{
    if (!err)
        return DIL_INTERNAL;
    char old[sizeof err->text];
    memcpy(old, err->text, sizeof old);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(err->text, sizeof err->text, status_text(format), args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof err->text)
        snprintf(err->text + n, sizeof err->text - (size_t)n, "%s", old);
    return err->code;
}

void status_clear(dil_error *err)
{
    if (err) {
        err->code = DIL_OK;
        err->text[0] = '\0';
    }
}

const char *status_name(dil_status code)
{
    static const char *const names[] = {N_("ok"),
                                        N_("out of memory"),
                                        N_("input/output error"),
                                        N_("malformed data"),
                                        N_("not supported"),
                                        N_("bad argument"),
                                        N_("limit exceeded"),
                                        N_("busy"),
                                        N_("cancelled"),
                                        N_("internal error")};
    size_t i = (size_t)code;
    return i < sizeof names / sizeof names[0] ? names[i] : N_("unknown status");
}
