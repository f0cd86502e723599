/*
 * What the four demos share: a story on standard output, pictures in a folder, and an end with a message when a call fails.
 *
 * The story is plain text that scripts/demo_page.py can read: "# title", "## part", paragraphs, tables (two spaces in front, two or
 * more between cells; a row of dashes is below the heads), "> " before what a model said, "picture: FILE: caption".
 */
#ifndef DEMO_H
#define DEMO_H

#define _POSIX_C_SOURCE 200809L /* mkdir */

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "dilmodeli.h"

enum { DEMO_PATH = 1024 };

static dil_error demo_error;
static const char *demo_folder = "demo-output";
static double demo_began;

/* Every call of the library goes through this: MUST(dil_...(..., &demo_error)). */
#define MUST(call) demo_must(call)

static inline void demo_die(const char *what)
{
    fflush(stdout);
    fprintf(stderr, "error: %s\n", what);
    exit(1);
}

static inline void demo_must(dil_status status)
{
    if (status != DIL_OK)
        demo_die(demo_error.text[0] ? demo_error.text : dil_status_name(status));
}

static inline void *demo_array(size_t n, size_t size)
{
    void *p = calloc(n ? n : 1, size);
    if (!p)
        demo_die("out of memory");
    return p;
}

static inline double demo_now(void)
{
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* DIL_DEMO_QUICK=1: a smaller story, for tests. */
static inline bool demo_quick(void)
{
    const char *quick = getenv("DIL_DEMO_QUICK");
    return quick && *quick && strcmp(quick, "0") != 0;
}

/* ---- the story ---- */

/* Takes the folder for pictures from the command line and makes it. */
static inline void demo_begin(int argc, char **argv, const char *title)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc > 2 || (argc == 2 && argv[1][0] == '-')) {
        fprintf(stderr, "usage: %s [FOLDER]\nThe pictures go to FOLDER, demo-output if it is not given.\n", argv[0]);
        exit(2);
    }
    if (argc == 2)
        demo_folder = argv[1];
    if (mkdir(demo_folder, 0777) != 0 && errno != EEXIST)
        demo_die("the folder for the pictures cannot be made");
    demo_began = demo_now();
    printf("# %s\n", title);
}

static inline void demo_part(const char *title) { printf("\n## %s\n", title); }

/* A paragraph. */
__attribute__((format(printf, 1, 2))) static inline void demo_say(const char *format, ...)
{
    va_list list;
    va_start(list, format);
    putchar('\n');
    vprintf(format, list);
    putchar('\n');
    va_end(list);
}

/* A row of a table of two columns. */
__attribute__((format(printf, 2, 3))) static inline void demo_figure(const char *name, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    printf("  %-34s  ", name);
    vprintf(format, list);
    putchar('\n');
    va_end(list);
}

static inline void demo_end(void) { demo_say("All of this took %.1f s.", demo_now() - demo_began); }

/* A number of bytes for people, in one of a few buffers that are used in turn. */
static inline const char *demo_bytes(double bytes)
{
    static char texts[8][32];
    static int next;
    char *text = texts[next++ % 8];
    if (bytes < 1e6)
        snprintf(text, sizeof texts[0], "%.1f kB", bytes * 1e-3);
    else if (bytes < 1e9)
        snprintf(text, sizeof texts[0], "%.1f MB", bytes * 1e-6);
    else
        snprintf(text, sizeof texts[0], "%.2f GB", bytes * 1e-9);
    return text;
}

/* ---- files ---- */

/* A file of the folder. path [DEMO_PATH], returned. */
static inline char *demo_path(char *path, const char *name)
{
    if (snprintf(path, DEMO_PATH, "%s/%s", demo_folder, name) >= DEMO_PATH)
        demo_die("the folder's name is too long");
    return path;
}

static inline bool demo_is_there(const char *path)
{
    FILE *f = fopen(path, "rb");
    return f && fclose(f) == 0;
}

/* The project's own mixture of experts: relative to the tree, where the demos are run. */
static inline const char *demo_sigircik(void)
{
    const char *path = "models/sigircik-moe.gguf";
    if (!demo_is_there(path))
        demo_die("models/sigircik-moe.gguf: cannot be read; run this in the folder of the sources");
    return path;
}

/* Where dil pull puts a model; false: it was not fetched. path [DEMO_PATH] */
static inline bool demo_smollm2(char *path)
{
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    if (data && *data)
        snprintf(path, DEMO_PATH, "%s/dilmodeli/smollm2.gguf", data);
    else
        snprintf(path, DEMO_PATH, "%s/.local/share/dilmodeli/smollm2.gguf", home ? home : "");
    return demo_is_there(path);
}

/* Draws NAME.svg for light screens and NAME-dark.svg for dark ones, or a page (NAME ends in .html) that suits both. text may be NULL. */
static inline void demo_picture(const char *kind, const char *const *inputs, size_t n_inputs, const char *name, const char *text,
                                const char *caption)
{
    char file[DEMO_PATH], path[DEMO_PATH];
    const bool page = strstr(name, ".html") != NULL;
    dil_view_options o = dil_view_options_default();
    o.text = text;
    o.text_bytes = text ? strlen(text) : 0;
    for (int dark = 0; dark < (page ? 1 : 2); dark++) {
        snprintf(file, sizeof file, "%s%s%s", name, dark ? "-dark" : "", page ? "" : ".svg");
        o.theme = page ? NULL : dark ? "dark" : "light";
        MUST(dil_view(kind, inputs, n_inputs, demo_path(path, file), &o, &demo_error));
    }
    printf("\npicture: %s%s: %s\n", name, page ? "" : ".svg", caption);
}

/* ---- numbers ---- */

static uint64_t demo_seed = 1;

/* Even in 0..1. */
static inline double demo_uniform(void)
{
    demo_seed = demo_seed * 6364136223846793005u + 1442695040888963407u;
    return ((double)(demo_seed >> 11) + 0.5) * 0x1p-53;
}

static inline float demo_normal(void) { return (float)(sqrt(-2 * log(demo_uniform())) * cos(6.283185307179586 * demo_uniform())); }

/* Rows that follow one another as a text's do: a walk, each 1 - step^2 / 2 correlated with the one before. x [n][width] */
static inline void demo_walk(float *x, size_t n, size_t width, double step)
{
    for (size_t i = 0; i < n * width; i++)
        x[i] = i < width ? demo_normal() : (float)(sqrt(1 - step * step) * x[i - width] + step * demo_normal());
}

/* |y - of|^2 / |of|^2 */
static inline double demo_relative(const float *y, const float *of, size_t n)
{
    double away = 0, all = 0;
    for (size_t i = 0; i < n; i++) {
        away += ((double)y[i] - of[i]) * ((double)y[i] - of[i]);
        all += (double)of[i] * of[i];
    }
    return away / all;
}

#endif
