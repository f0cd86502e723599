#include "cli/language.h"

#include <stdio.h>
#include <string.h>

#include "base/catalog.h"
#include "base/os.h"
#include "base/status.h"
#include "cli/cli.h"

/* Of the process, as its standard streams are. */
static struct {
    bool turkish, plain;
    catalog *texts; /* NULL: there is no catalog, texts stay English */
} now;

static const char *translate(const char *text)
{
    return now.turkish && !now.plain && now.texts ? catalog_text(now.texts, text) : text;
}

/* "tr" of "tr_TR.UTF-8". */
static bool names(const char *locale, const char *language)
{
    const size_t n = strlen(language);
    return strncmp(locale, language, n) == 0 && (locale[n] == '\0' || strchr("_.@-", locale[n]));
}

/* False when the name is of no language; the language stays as it was. */
static bool set(const char *name)
{
    char path[4096 + 64], dir[4096];
    dil_error err;
    if (!names(name, "tr") && !names(name, "en"))
        return false;
    now.turkish = names(name, "tr");
    if (!now.turkish || now.texts || !os_program_dir(dir, sizeof dir))
        return true;
    (void)snprintf(path, sizeof path, "%s/../share/locale/tr/LC_MESSAGES/dil.mo", dir);
    if (os_exists(path) && catalog_open(&now.texts, path, &err) != DIL_OK)
        (void)cli_fail(&err); /* a damaged one is told; without any, the program was built without translations */
    return true;
}

bool language_choose(const char *name)
{
    if (!set(name))
        return false;
    if (now.turkish && !now.texts)
        fputs(_("dil: note: this program was built without msgfmt, its texts are English only\n"), stderr);
    return true;
}

bool language_is_turkish(void) { return now.turkish; }
const char *language_name(void) { return now.turkish && now.texts ? "tr" : "en"; }
void language_plain(bool on) { now.plain = on; }

/* What the system's locale says, as the C library would find it; only Turkish changes anything. */
static const char *of_system(void)
{
    static const char *const variables[] = {"LC_ALL", "LC_MESSAGES", "LANG"};
    for (int i = 0; i < 3; i++) {
        const char *locale = os_env(variables[i]);
        if (locale)
            return names(locale, "tr") ? "tr" : "en";
    }
    return "en";
}

/* The value of the option when argv[i] is it, and how many words that takes. */
static const char *value_at(int argc, char **argv, int i, int *n_words)
{
    const char *word = argv[i];
    const size_t dashes = strspn(word, "-");
    if (dashes < 1 || dashes > 2 || strncmp(word + dashes, "lang", 4) != 0)
        return NULL;
    word += dashes + 4;
    *n_words = *word ? 1 : 2;
    return *word == '=' ? word + 1 : *word || i + 1 >= argc ? NULL : argv[i + 1];
}

static bool refuse(const char *found)
{
    (void)cli_usage("--lang: wanted tr or en, found '%s'", found);
    return false;
}

/* Takes those that stand at argv[at] out of the words. */
static bool take(int *argc, char **argv, int at)
{
    int n_words;
    for (const char *value; *argc > at && (value = value_at(*argc, argv, at, &n_words));) {
        if (!language_choose(value))
            return refuse(value);
        memmove(argv + at, argv + at + n_words, (size_t)(*argc - at - n_words + 1) * sizeof *argv); /* with the NULL at the end */
        *argc -= n_words;
    }
    return true;
}

/* How many words behind this one are no options of a command: where --lang is taken out. */
static int words_behind(const char *word, int argc)
{
    if (strcmp(word, "help") == 0 || strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        return argc - 2;
    return strcmp(word, "eval") == 0; /* its second word is a command's */
}

static void look_behind(int argc, char **argv)
{
    int n_words;
    for (int i = 2; i < argc && strcmp(argv[i], "--") != 0; i++) {
        const char *value = value_at(argc, argv, i, &n_words);
        if (value && set(value))
            return;
    }
}

bool language_begin(int *argc, char **argv)
{
    const char *wanted = os_env("DIL_LANG");
    status_translate_with(translate);
    if (!set(wanted ? wanted : of_system())) {
        (void)cli_usage("DIL_LANG: wanted tr or en, found '%s'", wanted);
        return false;
    }
    if (!take(argc, argv, 1))
        return false;
    for (int i = 0; *argc > 1 && i < words_behind(argv[1], *argc); i++)
        if (!take(argc, argv, 2 + i))
            return false;
    look_behind(*argc, argv);
    return true;
}

void language_end(void)
{
    status_translate_with(NULL);
    catalog_close(now.texts);
    now.texts = NULL;
    now.turkish = now.plain = false;
}
