/*
 * The pre-tokenisers that model files name, as facts of those models: each list is what the model was trained with (its
 * tokenizer.json), the names are those of the GGUF key tokenizer.ggml.pre. PCRE2 syntax; \s means Unicode white space.
 */
#include "tokens/pretokenize.h"

#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
/* Words with one leading character that is no letter, numbers as given, punctuation with the newlines behind it. */
#define WORDS "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define PUNCTUATION "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
#define LLAMA3(numbers) CONTRACTION "|" WORDS numbers PUNCTUATION SPACES
/* Words cut where lower case turns into upper case. */
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define LEAD "[^\\r\\n\\p{L}\\p{N}]?"
#define CASED(upper, lower, tail, numbers) \
    LEAD upper "*" lower "+" tail "|" LEAD upper "+" lower "*" tail "|" numbers "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES
#define ASCII_PUNCTUATION "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~]"
/* DeepSeek-V3's main expression; tail: how newlines end punctuation and space. */
#define DEEPSEEK3(newlines, tail) \
    ASCII_PUNCTUATION             \
    "[A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+" newlines "|" tail
#define HAN_KANA "[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+"
#define HAN_HANGUL "[\\x{4e00}-\\x{9fa5}\\x{800}-\\x{4e00}\\x{ac00}-\\x{d7ff}]+"
#define SENTENCE_PARTS " ?[^(\\s|.,!?\\x{2026}\\x{3002}\\x{ff0c}\\x{3001}\\x{964}\\x{6d4}\\x{60c})]+"
#define DEEPSEEK_LETTERS                                                                         \
    "\\s?[A-Za-z\\x{b5}\\x{c0}-\\x{d6}\\x{d8}-\\x{f6}\\x{f8}-\\x{1ba}\\x{1bc}-\\x{1bf}\\x{1c4}-" \
    "\\x{293}\\x{295}-\\x{2af}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37b}-\\x{37d}\\x{37f}"        \
    "\\x{386}\\x{388}-\\x{38a}\\x{38c}\\x{38e}-\\x{3a1}\\x{3a3}-\\x{3f5}\\x{3f7}-\\x{481}"       \
    "\\x{48a}-\\x{52f}\\x{531}-\\x{556}\\x{10a0}-\\x{10c5}\\x{13a0}-\\x{13f5}\\x{13f8}-"         \
    "\\x{13fd}\\x{1c90}-\\x{1cba}\\x{1cbd}-\\x{1cbf}\\x{1d00}-\\x{1d2b}\\x{1d6b}-\\x{1d77}"      \
    "\\x{1d79}-\\x{1d9a}\\x{1e00}-\\x{1f15}\\x{1f18}-\\x{1f1d}\\x{1f20}-\\x{1f45}\\x{1f48}-"     \
    "\\x{1f4d}\\x{1f50}-\\x{1f57}\\x{1f59}\\x{1f5b}\\x{1f5d}\\x{1f5f}-\\x{1f7d}\\x{1f80}-"       \
    "\\x{1fb4}\\x{1fb6}-\\x{1fbc}\\x{1fbe}\\x{1fc2}-\\x{1fc4}\\x{1fc6}-\\x{1fcc}\\x{1fd0}-"      \
    "\\x{1fd3}\\x{1fd6}-\\x{1fdb}\\x{1fe0}-\\x{1fec}\\x{1ff2}-\\x{1ff4}\\x{1ff6}-\\x{1ffc}"      \
    "\\x{2102}\\x{2107}\\x{210a}-\\x{2113}\\x{2115}\\x{2119}-\\x{211d}\\x{2124}\\x{2126}"        \
    "\\x{2128}\\x{212a}-\\x{212d}\\x{212f}-\\x{2134}\\x{2139}\\x{213c}-\\x{213f}\\x{2145}-"      \
    "\\x{2149}\\x{214e}\\x{2183}\\x{2184}\\x{2c00}-\\x{2c7b}\\x{2c7e}-\\x{2ce4}\\x{2ceb}-"       \
    "\\x{2cee}\\x{2cf2}\\x{2cf3}\\x{a640}-\\x{a66d}\\x{a680}-\\x{a69b}\\x{a722}-\\x{a76f}"       \
    "\\x{a771}-\\x{a787}\\x{a78b}-\\x{a78e}\\x{ab70}-\\x{abbf}\\x{fb00}-\\x{fb06}\\x{fb13}-"     \
    "\\x{fb17}\\x{ff21}-\\x{ff3a}\\x{ff41}-\\x{ff5a}\\x{10400}-\\x{1044f}\\x{104b0}-\\x{104d3}"  \
    "\\x{104d8}-\\x{104fb}\\x{10c80}-\\x{10cb2}\\x{10cc0}-\\x{10cf2}\\x{118a0}-\\x{118df}"       \
    "\\x{1e900}-\\x{1e943}]+"
#define DEEPSEEK_PUNCTUATION "\\s?[!-/:-~\\x{ff01}-\\x{ff0f}\\x{ff1a}-\\x{ff5e}\\x{2018}-\\x{201f}\\x{3000}-\\x{3002}]+"
#define YOUTU_SCRIPTS                                                                          \
    "[\\x{ac00}-\\x{d7a3}\\x{3131}-\\x{318e}]+|[\\x{ff01}\\x{2026}\\x{201c}\\x{201d}\\x{2018}" \
    "\\x{2019}\\x{2014}\\x{ff1a}\\x{ff1b}\\x{ff0c}\\x{3001}-\\x{303f}\\x{fe30}-\\x{fe4f}]+|["  \
    "\\x{3105}-\\x{312f}]+|[\\x{4e00}-\\x{9fa5}\\x{3040}-\\x{309f}\\x{30a0}-\\x{30ff}]+"
#define AFMOE_SCRIPTS                                                                         \
    "[\\x{4e00}-\\x{9fff}\\x{3400}-\\x{4dbf}\\x{f900}-\\x{faff}\\x{3040}-\\x{309f}\\x{30a0}-" \
    "\\x{30ff}\\x{ff65}-\\x{ff9f}\\x{2f00}-\\x{2fdf}\\x{e40}-\\x{e7f}\\x{e80}-\\x{eff}"       \
    "\\x{1780}-\\x{17ff}\\x{1000}-\\x{109f}\\x{aa60}-\\x{aa7f}\\x{a9e0}-\\x{a9ff}\\x{ac00}-"  \
    "\\x{d7af}\\x{1100}-\\x{11ff}]+"

const pre_rule pre_rules[] = {
    {"default", 0, {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2, "\\p{N}+", "[0-9][0-9][0-9]"}},
    {"gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert jina-v1-en jina-v2-code "
     "roberta-bpe exaone4 mpt olmo jais trillion granite-docling",
     0,
     {GPT2}},
    {"llama-bpe llama3 llama-v3 falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
     PRE_IGNORE_MERGES | PRE_ADD_BOS,
     {LLAMA3("\\p{N}{1,3}")}},
    {"dbrx smaug-bpe chatglm-bpe", 0, {LLAMA3("\\p{N}{1,3}")}},
    {"glm4 glm5", PRE_IGNORE_MERGES, {LLAMA3("\\p{N}{1,3}")}},
    {"qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2", 0, {LLAMA3("\\p{N}")}},
    {"qwen35", 0, {CONTRACTION "|" LEAD "[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" SPACES}},
    {"ufakzeka", 0, {WORDS "\\p{N}" PUNCTUATION SPACES}},
    {"laguna", 0, {"[^\\n]+|[\\n]+", LLAMA3("\\p{N}")}},
    {"minicpm5", PRE_IGNORE_MERGES, {"\\p{N}{1,3}", LLAMA3("\\p{N}+")}},
    {"jais-2",
     0,
     {CONTRACTION
      "|" WORDS "\\p{N}{1,3}" PUNCTUATION "\\s*[\\r\\n]+|\\s{512}(?!\\S)|\\s{256}(?!\\S)|"
      "\\s{128}(?!\\S)|\\s{64}(?!\\S)|\\s{32}(?!\\S)|\\s{16}(?!\\S)|\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}"}},
    {"smollm starcoder refact command-r codeshell exaone minerva-7b mellum2", 0, {"\\p{N}", GPT2}},
    {"falcon", 0, {"[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]"}},
    {"deepseek-llm", 0, {"[\\r\\n]", DEEPSEEK_LETTERS, DEEPSEEK_PUNCTUATION, "\\s+$", HAN_HANGUL, "\\p{N}+"}},
    {"deepseek-coder", 0, {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", HAN_HANGUL, "\\p{N}"}},
    {"deepseek-v3 hunyuan-dense joyai-llm hy_v4", 0, {"\\p{N}{1,3}", HAN_KANA, DEEPSEEK3("[\\r\\n]*", SPACES)}},
    {"spark2_5", 0, {"\\p{N}{1,3}", HAN_KANA, DEEPSEEK3("", "[\\r\\n]|\\s+(?!\\S)|\\s+"), "\\p{N}"}},
    {"youtu", PRE_IGNORE_MERGES, {YOUTU_SCRIPTS, CASED(UPPER, LOWER, CONTRACTION "?", "\\p{N}")}},
    {"afmoe", 0, {PRE_STAGE_NUMBERS, AFMOE_SCRIPTS, DEEPSEEK3("[\\r\\n]*", SPACES)}},
    {"gpt-4o llama4 kanana2 talkie minimax-m2", 0, {CASED(UPPER, LOWER, CONTRACTION "?", "\\p{N}{1,3}")}},
    {"granite-embed-multi-97m", PRE_IGNORE_MERGES, {CASED(UPPER, LOWER, CONTRACTION "?", "\\p{N}{1,3}")}},
    {"tiny_aya cohere2moe",
     0,
     {PRE_STAGE_DIGITS_WORD, LEAD UPPER "*" LOWER "+" CONTRACTION "?|" LEAD UPPER "+" LOWER "*" CONTRACTION
                                        "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES}},
    {"tekken", PRE_IGNORE_MERGES | PRE_ADD_BOS, {CASED(UPPER, LOWER, "", "\\p{N}")}},
    /* The class intersections [..&&[^\p{Han}]] of the original, as look-ahead. */
    {"kimi-k2",
     0,
     {"\\p{Han}+|" LEAD "(?:(?!\\p{Han})" UPPER ")*(?:(?!\\p{Han})" LOWER ")+" CONTRACTION "?|" LEAD "(?:(?!\\p{Han})" UPPER
      ")+(?:(?!\\p{Han})" LOWER ")*" CONTRACTION "?|\\p{N}{1,3}" PUNCTUATION SPACES}},
    {"superbpe", 0, {"\\p{N}+", PRE_STAGE_DIGITS}},
    {"bailingmoe bailingmoe2 llada-moe", 0, {CONTRACTION "|" WORDS "\\p{N}" PUNCTUATION "\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}},
    {"seed-coder", 0, {CONTRACTION "|" WORDS "\\p{N}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|" SPACES}},
    /* (?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+ of the original is exponential; this is the same language. */
    {"exaone-moe",
     0,
     {CONTRACTION "|" LEAD "\\p{L}(?:[\\p{L}\\p{M}]| \\p{L})*+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|"
                  "\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"}},
    {"bloom poro-chat gpt3-finnish", 0, {SENTENCE_PARTS}},
    {"viking", 0, {SENTENCE_PARTS, "\\p{N}"}},
    {"chameleon",
     PRE_ADD_BOS,
     {"<sentinel:[0-9]+>", "(?:IMGIMG)[A-I]{1,4}Z", "[\\t\\n]|    |  ", "\\p{N}", "[\\p{P}!-/:-@\\[-`{-~]", GPT2}},
    {"gemma4 granite-embed-multi-311m sarvam-moe", PRE_MARKS, {NULL}},
};

const int n_pre_rules = (int)(sizeof pre_rules / sizeof pre_rules[0]);

const pre_rule *pre_rule_find(str name)
{
    for (int i = 0; i < n_pre_rules; i++) {
        for (const char *p = pre_rules[i].names; *p;) {
            size_t n = strcspn(p, " ");
            if (n == name.n && memcmp(p, name.p, n) == 0)
                return &pre_rules[i];
            p += n + (p[n] == ' ');
        }
    }
    return NULL;
}
