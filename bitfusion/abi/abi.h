/* SPDX-License-Identifier: Apache-2.0
 *
 * What any libcuda.so.1 of ours needs beside the driver functions themselves: lookup by (name, version, flags),
 * error names, the hidden tables that cudart and cuBLAS ask for, context-local storage.
 * Used by the proxy, the software GPU and the null driver; it knows none of them.
 */
#ifndef BITFUSION_ABI_H
#define BITFUSION_ABI_H

#include "cuda.h"

#include <stddef.h>
#include <stdint.h>

/* ------------------------------------------------------------------ lookup (lookup.c; tables are generated) */

/* One flavour of one function. `function` is NULL for a known function that this library does not have. */
struct abi_symbol {
	const char *name;     /* base name, as cuGetProcAddress is asked for it */
	const char *exported; /* with its ABI suffix */
	int version;          /* the CUDA version that introduced this ABI, 1000 × major + 10 × minor */
	int per_thread;       /* the _ptsz / _ptds flavour */
	void *function;
};

/* Sorted by name, then per_thread, then version. Each library's generated/symbols.c defines both. */
extern const struct abi_symbol abi_symbols[];
extern const unsigned abi_symbol_count;

/* cuGetProcAddress_v2 with driver_version as the newest version there is. status may be NULL. */
CUresult abi_get_proc_address(const char *name, void **function, int version, cuuint64_t flags,
			      CUdriverProcAddressQueryResult *status, int driver_version);
/* cuGetProcAddress as it was before 12.0: CUDA_ERROR_NOT_FOUND and NULL for what is missing. */
CUresult abi_get_proc_address_v1(const char *name, void **function, int version, cuuint64_t flags, int driver_version);

/* cuGetErrorName, cuGetErrorString; CUDA_ERROR_INVALID_VALUE and NULL for unknown numbers. */
CUresult abi_error_name(CUresult error, const char **name);
CUresult abi_error_string(CUresult error, const char **text);

/* ------------------------------------------------------------------ CUDA_VISIBLE_DEVICES (visible.c) */

typedef void (*abi_uuid_function)(uint8_t uuid[16], int device);
/* Those of `count` devices that the program is to see, in its order; returns how many. */
unsigned abi_visible_devices(unsigned count, abi_uuid_function uuid, uint32_t *chosen);

/* ------------------------------------------------------------------ hidden tables (tables.c, integrity.c) */

/* What the tables need of the library that serves them. */
struct abi_host {
	int (*driver_version)(void);
	int (*device_count)(void);
	/* UUID and PCI domain, bus, device as the program sees them */
	void (*device_identity)(int device, uint8_t uuid[16], uint32_t pci[3]);
	/* stable handle, needs no live context; NULL if no such device */
	CUcontext (*primary_context)(CUdevice device);
	CUcontext (*current_context)(void);            /* of this thread, NULL if none */
	CUresult (*context_device)(CUcontext context, CUdevice *device);
	uint64_t (*context_id)(CUcontext context);
	uint64_t (*stream_id)(CUcontext context, CUstream stream);
	CUresult (*load_module)(CUmodule *module, const void *image);
};
extern const struct abi_host abi_host; /* the library defines it */

/* cuGetExportTable: the seven tables that cudart and cuBLAS need; CUDA_ERROR_NOT_FOUND for all others. `caller` is an
 * address in the code that asks. */
CUresult abi_get_export_table(const void **table, const CUuuid *id, const void *caller);

/* ------------------------------------------------------------------ who calls (runtime.c) */

/* The code around `caller` is CUDA's runtime. */
void abi_note_runtime(const void *caller);
/* What a launch from there answers when no GPU has blocks or grids of that shape. */
CUresult abi_impossible_shape(const void *caller);

/* Context-local storage: to be called when a context dies (destroyed, reset, last release), on the calling
 * thread, before the context is gone. Runs each stored destructor. */
void abi_context_storage_clear(CUcontext context);

#endif
