/* SPDX-License-Identifier: Apache-2.0
 *
 * What modules and libraries share.
 */
#ifndef SOFTGPU_MODULE_H
#define SOFTGPU_MODULE_H

#include "driver.h"

struct function *module_function(struct module *module, unsigned index); /* with modules_lock held */
CUresult module_global(struct module *module, const char *name, CUdeviceptr *address, size_t *size);
const struct placed *placed_find(const struct placed *list, unsigned count, const char *name);
CUresult file_read(const char *name, void **bytes, size_t *size); /* malloc'ed, and a NUL after the end */

#endif
