/* SPDX-License-Identifier: Apache-2.0
 *
 * How one CUDA function crosses the wire: data, generated from bitfusion/api, read by the marshalling
 * interpreter of each side (proxy/call.c and executor/call.c).
 *
 * A command's body holds, for each argument in order, 8-byte aligned:
 *   VALUE, DEVICE, LOCATION, HANDLE, FREE_HANDLE, NEW_HANDLE, FOUND_HANDLE   one uint64_t
 *   IN                       uint64_t present, then (if 1) the bytes padded to 8
 *   INOUT                    the same
 *   OUT                      uint64_t present
 *   IN_ARRAY, STRING, IN_HANDLES   uint64_t bytes (BF_NULL for NULL), then the bytes padded to 8
 *   OUT_ARRAY, OUT_HANDLES   uint64_t capacity in bytes (BF_NULL for NULL)
 *   CONFIG                   uint64_t bytes, then a CUlaunchConfig and its numAttrs CUlaunchAttribute: `attrs` is
 *                            set, hStream and the handles in attributes are translated by the executor
 *   KERNEL_NODE              uint64_t bytes, then a CUDA_KERNEL_NODE_PARAMS_v2 and the packed parameters: the
 *                            executor translates func, kern and ctx, and sets extra
 *   RESOURCE                 as IN: a CUDA_RESOURCE_DESC, whose array the executor translates
 * The reply's body holds the same way, for each argument the program passed a pointer for: OUT, INOUT the bytes
 * padded to 8; OUT_ARRAY, OUT_HANDLES uint64_t bytes, then they; FOUND_HANDLE one uint64_t. A reply without
 * a body means that the executor did not make the call.
 */
#ifndef BITFUSION_ROW_H
#define BITFUSION_ROW_H

#include <stdint.h>

#define BF_NULL UINT64_MAX
enum { BF_MAX_ARGUMENTS = 16, BF_NO_ARGUMENT = 0xff };

enum bf_argument_kind {
	BF_ARG_VALUE,        /* by value, at most 8 bytes */
	BF_ARG_DEVICE,       /* CUdevice: an index into the session's devices */
	BF_ARG_HANDLE,       /* by value, translated by the executor */
	BF_ARG_FREE_HANDLE,  /* the same, and dropped from the table when the call succeeds */
	BF_ARG_NEW_HANDLE,   /* T *: minted by the client, bound by the executor when the call succeeds */
	BF_ARG_FOUND_HANDLE, /* T *: the driver may return a handle it gave before; the reply says which */
	BF_ARG_IN,           /* const T *, `size` bytes */
	BF_ARG_INOUT,        /* T *, `size` bytes both ways */
	BF_ARG_OUT,          /* T *, `size` bytes back */
	BF_ARG_STRING,       /* const char *, NUL-terminated */
	BF_ARG_IN_ARRAY,     /* const T *, `size` bytes times argument `count` */
	BF_ARG_OUT_ARRAY,    /* T *, `size` bytes times argument `count` (which may itself be INOUT: a capacity) */
	BF_ARG_IN_HANDLES,   /* const T *, 8 bytes times argument `count` */
	BF_ARG_OUT_HANDLES,  /* T *, 8 bytes times argument `count`, or one; the executor numbers unknown ones */
	BF_ARG_LOCATION,     /* CUmemLocation by value, in one uint64_t; its device is translated like DEVICE */
	BF_ARG_CONFIG,       /* const CUlaunchConfig *, with its attributes right behind it */
	BF_ARG_KERNEL_NODE,  /* const CUDA_KERNEL_NODE_PARAMS_v2 *; a program of ours passes struct bf_kernel_node */
	BF_ARG_RESOURCE,     /* const CUDA_RESOURCE_DESC *, `size` bytes: what a texture or a surface is of */
};

struct bf_argument {
	uint8_t kind;
	uint8_t handle; /* enum bf_handle_kind */
	uint8_t count;  /* index of the argument that counts the elements, or BF_NO_ARGUMENT */
	uint8_t width;  /* VALUE: bytes, 1 2 4 8 */
	uint32_t size;  /* bytes of T */
	uint16_t location; /* 1 + offset in T of a CUmemLocation, whose device is translated like DEVICE; 0 for none */
	uint16_t less; /* elements fewer than argument `count` says */
};

enum bf_row_flags {
	BF_ROW_ONEWAY = 1, /* sent, not waited for */
	BF_ROW_BLOCKS = 2, /* may wait for the device: the executor must not make it on its issue thread */
	BF_ROW_NO_CONTEXT = 4,
	BF_ROW_CUSTOM_EXECUTOR = 8, /* the executor has a function of its own for it */
};

struct bf_row {
	const char *name; /* exported name, with its ABI suffix */
	uint8_t argument_count;
	uint8_t flags;
	uint8_t stream; /* index of the stream argument (_ptsz flavour), or BF_NO_ARGUMENT */
	uint8_t zero;
	const struct bf_argument *arguments;
};

/* A kernel node's parameters are packed before they travel; `size` counts what follows it. */
struct bf_kernel_node {
	uint64_t size;
	uint8_t params[72]; /* CUDA_KERNEL_NODE_PARAMS_v2; kernelParams and extra are NULL */
	uint8_t packed[];
};

/* wire/generated/rows.c; bf_rows[0] is call number BF_FIRST_ROW */
extern const struct bf_row bf_rows[];
extern const unsigned bf_row_count;

#endif
