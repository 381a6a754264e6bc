/* SPDX-License-Identifier: Apache-2.0
 *
 * How the driver dresses a compiled image that the program holds in its own hands.
 */
#ifndef SOFTGPU_IMAGE_H
#define SOFTGPU_IMAGE_H

#include "driver.h"

enum { OWN_KIND = 0x4247 }; /* of a fatbin entry; no compiler makes such a one */

/* malloc'ed */
void *image_wrap(const void *bytes, size_t size, size_t *total);

#endif
