/* Statuses and errors: set once, where the failure is understood; passed on with DIL_TRY. */
#ifndef BASE_STATUS_H
#define BASE_STATUS_H

#include "dilmodeli.h"

/* Returns from the calling function when call does not end in DIL_OK. */
#define DIL_TRY(call)                        \
    do {                                     \
        dil_status dil_try_status_ = (call); \
        if (dil_try_status_ != DIL_OK)       \
            return dil_try_status_;          \
    } while (0)

/* Fills err (may be NULL) with code and a printf-style text, and returns code. */
dil_status status_fail(dil_error *err, dil_status code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts a printf-style prefix before the text already in err (for the caller's context, e.g. a path); returns err's code. */
dil_status status_prefix(dil_error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Clears err to DIL_OK with an empty text. */
void status_clear(dil_error *err);

/* "out of memory", ... [static]. */
const char *status_name(dil_status code);

#define DIL_FAIL(err, code, ...) status_fail((err), (code), __VA_ARGS__)

/*
 * Texts in the reader's language. The formats of status_fail and status_prefix go through status_text by themselves; words that become
 * their arguments are marked with _(), words of static tables with N_(), and whoever shows those applies _(). Marks are what
 * scripts/check_translations.py collects for po/.
 */
#define _(text) status_text(text)
#define N_(text) text

/* text in the reader's language, with the same conversions; text itself without a translator. */
const char *status_text(const char *text) __attribute__((format_arg(1)));
/* Sets what status_text asks (NULL: nothing, English). The command does it, before its first thread; libraries never do. */
void status_translate_with(const char *(*translate)(const char *text));

#endif
