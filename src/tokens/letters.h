/* What Unicode says of single characters. */
#ifndef TOKENS_LETTERS_H
#define TOKENS_LETTERS_H

#include <stdint.h>

/* The small letter of a code point, itself when it has none: one character, whatever the language. */
uint32_t letters_lower(uint32_t code);

#endif
