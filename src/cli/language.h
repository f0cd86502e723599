/*
 * The language of what people read: help, errors, progress, results. What programs read (JSON, csv, sql, exit codes, names) is the same in
 * every language.
 */
#ifndef CLI_LANGUAGE_H
#define CLI_LANGUAGE_H

#include <stdbool.h>

/*
 * Before anything is printed: takes `--lang NAME` in front of the command out of the words, else looks for the first one behind it that
 * names a language (its command's options say later whether it was meant as that), else DIL_LANG, else LC_ALL, LC_MESSAGES or LANG, else English.
 * False: bad usage, which was told.
 */
bool language_begin(int *argc, char **argv);
/* At the end; texts are English again. */
void language_end(void);

/* "tr", "en", "tr_TR.UTF-8", ..., as somebody asked for in so many words; false when it is another, nothing changes then. */
bool language_choose(const char *name);
bool language_is_turkish(void);
const char *language_name(void); /* of the texts there are: "tr" or "en" */
/* While on, texts stay English: for those that become values of JSON. */
void language_plain(bool on);

#endif
