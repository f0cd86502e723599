/* A training run as its JSON file says. */
#ifndef TRAIN_CONFIG_H
#define TRAIN_CONFIG_H

#include "theorem/price.h"
#include "train/corpus.h"
#include "train/loss.h"
#include "train/net.h"
#include "train/optimiser.h"

typedef struct train_config {
    char name[64];
    char output[1024]; /* directory of the run; relative paths are relative to the config file's directory */
    uint64_t seed;
    int vocab_size;        /* a tokenizer is trained when vocab_file is empty */
    char vocab_file[1024]; /* a GGUF file whose vocabulary is used */
    corpus_source sources[CORPUS_MOST_SOURCES];
    int n_sources;
    net_config net; /* n_vocab is set from the vocabulary */
    net_compute compute;
    optimiser_config optimiser;
    uint64_t n_steps;
    int n_sequences;  /* per step */
    int n_accumulate; /* a step's sequences are taken in so many passes; divides n_sequences */
    float z_weight;
    loss_config loss;          /* weights at full strength */
    double cached_experts;     /* sets loss.recency; 0: a quarter of the experts */
    double loss_from, loss_to; /* shares of the run: cache, swarm and nash rise linearly from 0 to full between these */
    price_rule price_rule;
    float price_rate;                          /* 0: no prices */
    double price_end;                          /* the last share of the run in which prices fall linearly to 0 (0.1) */
    uint64_t evaluate_every, checkpoint_every; /* steps; 0: at the end only */
    int evaluate_sequences;                    /* per source; 0: all of the held-out part */
} train_config;

/* Defaults of everything the file may leave out. */
void train_config_default(train_config *c);
/* Unknown keys, wrong kinds and values out of range are BAD_ARGUMENT / FORMAT and name the key, wanted and found. */
DIL_MUST_CHECK dil_status train_config_parse(train_config *out, str json, const char *path, dil_error *err);
DIL_MUST_CHECK dil_status train_config_read(train_config *out, const char *path, dil_error *err);
/* The JSON text that gives this config again. */
DIL_MUST_CHECK dil_status train_config_print(const train_config *c, strbuf *out, dil_error *err);

#endif
