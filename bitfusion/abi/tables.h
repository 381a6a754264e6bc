/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BITFUSION_ABI_TABLES_H
#define BITFUSION_ABI_TABLES_H

#include "abi.h"

/* Words of a hidden table: a size in bytes, then functions. Their addresses are part of the integrity check. */
extern void *const abi_table_cudart[];
extern void *const abi_table_integrity[];

CUresult abi_integrity_check(uint32_t version, uint64_t unix_seconds, uint8_t result[16]);

/* Context-local storage: the third table. */
typedef void (*abi_storage_destructor)(CUcontext context, void *key, void *value);
CUresult abi_storage_put(CUcontext context, void *key, void *value, abi_storage_destructor destructor);
CUresult abi_storage_delete(CUcontext context, void *key);
CUresult abi_storage_get(void **value, CUcontext context, void *key);

#endif
