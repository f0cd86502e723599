/* The packed scales and minima of Q4_K and Q5_K: eight of 6 bits each in 12 bytes. */
#ifndef FORMATS_KQUANTS_H
#define FORMATS_KQUANTS_H

#include <stdint.h>

/*
 * Bytes 0..3: scales 0..3, bytes 4..7: minima 0..3, each in the low 6 bits. Bytes 8..11: the low
 * nibbles of scales 4..7 and, above them, of minima 4..7, whose upper two bits are the top two bits
 * of bytes 0..3 and 4..7.
 */
void kquants_scale_min(const uint8_t packed[12], int j, int *scale, int *min);

#endif
