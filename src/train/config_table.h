/* The keys of a config file: one table that reading, writing and comparing walk. Only src/train/config*.c and checkpoint.c know it. */
#ifndef TRAIN_CONFIG_TABLE_H
#define TRAIN_CONFIG_TABLE_H

#include "train/config.h"

typedef enum config_kind {
    CONFIG_TEXT, /* char [most + 1] */
    CONFIG_PATH, /* the same; relative to the config file */
    CONFIG_INT,
    CONFIG_U64,
    CONFIG_FLOAT,
    CONFIG_DOUBLE,
    CONFIG_BOOL,
    CONFIG_CHOICE /* an int that is the index of one of `names` */
} config_kind;

typedef struct config_row {
    const char *section; /* "": the top level */
    const char *key;
    config_kind kind;
    size_t offset; /* in train_config; of rows of config_sources in corpus_source */
    double least, most;
    const char *const *names; /* of CHOICE, NULL-terminated */
} config_row;

extern const config_row config_rows[]; /* section by section, ends with key NULL */
extern const config_row config_sources[];

/* As the file would have it: 8, 0.002, true, "sign". */
void config_print_value(strbuf *out, const config_row *row, const void *base);

/* Key of the first property in which the shapes of two networks differ, NULL: none. Values of both as text. */
const char *config_shape_difference(const net_config *a, const net_config *b, char a_text[64], char b_text[64]);

#endif
