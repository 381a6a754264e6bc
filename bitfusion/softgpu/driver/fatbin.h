/* SPDX-License-Identifier: Apache-2.0
 *
 * The PTX text in what a program passes as code. Knows neither the driver nor the engine, so that it can be fuzzed
 * alone.
 */
#ifndef SOFTGPU_FATBIN_H
#define SOFTGPU_FATBIN_H

#include <stddef.h>
#include <stdint.h>

enum { NEWEST_PTX = 121 }; /* as ptx/fatbin.py has it */

/* The text for the newest architecture that the device has, malloc'ed and with a NUL behind it. NULL where there is
 * none, where several images are to be linked, and where anything is wrong: the front end says what. */
char *fatbin_text(const void *bytes, size_t size, size_t *text_size);

#endif
