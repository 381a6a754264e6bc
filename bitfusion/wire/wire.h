/* SPDX-License-Identifier: Apache-2.0
 *
 * The bytes between a proxy (in the application) and an executor (in the worker): one ordered stream of
 * commands one way, replies the other way. docs/wire.md tells the same story in prose.
 *
 * All integers are little-endian and naturally aligned; every command and reply is a multiple of 8 bytes.
 * Device addresses are the same number on both sides, so they travel as plain values.
 */
#ifndef BITFUSION_WIRE_H
#define BITFUSION_WIRE_H

#include <stdint.h>

enum { BF_PROTOCOL = 6 };

/* ------------------------------------------------------------------ limits: checked before anything is allocated */

enum {
	BF_MAX_COMMAND = 1 << 20,       /* bytes of one command or reply, bulk data not counted */
	BF_MAX_ENVIRONMENT = 64 << 10,  /* bytes of environment in the hello */
	BF_MAX_TEXT = 4 << 10,          /* bytes of text in the welcome */
	BF_MAX_PARAMETERS = 32768,      /* bytes of one kernel's parameters (CUDA allows 32,764) */
	BF_MAX_LAUNCH_ATTRIBUTES = 64,
	BF_MAX_DEVICES = 64,
	BF_MAX_HANDLES = 1 << 24,       /* of one kind in one session */
	BF_MAX_LOAD_INPUTS = 4096,      /* of code that is linked when it is loaded */
	BF_MAX_FETCH = 1 << 20,         /* bytes asked for by one BF_FETCH */
	BF_REFRESH_PIECE = 16 << 10,    /* bytes that one digest of a BF_OP_REFRESH is of */
	BF_MAX_REFRESH = 64 * BF_REFRESH_PIECE,
	BF_DEVICE_ATTRIBUTES = 160,     /* CUdevice_attribute 1 … 159; 0 is unused */
	BF_FUNCTION_ATTRIBUTES = 16,    /* CUfunction_attribute 0 … 15 */
};
#define BF_MAX_IMAGE ((uint64_t)2 << 30) /* bytes of one code image */
#define BF_MAX_COPY ((uint64_t)1 << 40)  /* bytes of one copy; streamed, never allocated whole */

/* ------------------------------------------------------------------ handshake */

#define BF_MAGIC "BFWIRE\r\n"

/* First bytes from the client; environment_size bytes of NUL-terminated "NAME=value" strings follow
 * (CUDA_* variables that a driver reads in its own process). */
struct bf_hello {
	char magic[8];
	uint32_t protocol;
	uint32_t environment_size; /* multiple of 8, zero padded */
	uint64_t spec_hash;        /* BF_SPEC_HASH of calls.h */
	uint32_t pid;
	uint32_t flags;
};

/* The executor's answer; text_size bytes of UTF-8 follow (the reason, when status is not 0). */
struct bf_welcome {
	char magic[8];
	uint32_t protocol;
	int32_t status; /* CUresult: 0, or why the session cannot start */
	uint64_t spec_hash;
	uint32_t text_size; /* multiple of 8, zero padded */
	uint32_t zero;
};

/* ------------------------------------------------------------------ handles
 *
 * A handle that the program sees is not a pointer: the client mints it, and the executor keeps a table from
 * (kind, index) to the driver's own handle. The number is not a canonical address, so that a program which
 * follows it faults at once; it is positive as an int64 and a multiple of 16, because PyTorch keeps flags in
 * the low bits of a stream. The driver's special streams 0, 1 and 2 travel unchanged.
 */
enum bf_handle_kind {
	BF_NOT_A_HANDLE,
	BF_CONTEXT,
	BF_MODULE,
	BF_FUNCTION,
	BF_LIBRARY,
	BF_KERNEL,
	BF_STREAM,
	BF_EVENT,
	BF_MEMPOOL,
	BF_GRAPH,
	BF_GRAPHEXEC,
	BF_GRAPHNODE,
	BF_LINKSTATE,
	BF_ALLOCATION, /* CUmemGenericAllocationHandle */
	BF_ARRAY,
	BF_MIPMAPPEDARRAY,
	BF_HANDLE_KINDS
};

#define BF_HANDLE(kind, index) (((uint64_t)0x5b << 56) | ((uint64_t)(kind) << 48) | ((uint64_t)(index) << 4))
#define BF_HANDLE_KIND(handle) ((unsigned)((uint64_t)(handle) >> 48 & 0xff))
#define BF_HANDLE_INDEX(handle) ((uint32_t)((uint64_t)(handle) >> 4))
#define BF_IS_HANDLE(handle) ((uint64_t)(handle) >> 56 == 0x5b && !((uint64_t)(handle) & 0xf))

/* Index 0 is never used. The primary context of device d has index d + 1; created contexts start here. */
enum { BF_FIRST_CREATED_CONTEXT = BF_MAX_DEVICES + 1 };

/* ------------------------------------------------------------------ client to server */

enum bf_command_flags {
	BF_WANTS_REPLY = 1, /* else one-way: a failure is kept and reported as `deferred` in the next reply */
	BF_HAS_BULK = 2,    /* the body starts with a uint64_t: that many raw bytes follow the command */
};

struct bf_command {
	uint32_t size;    /* header and body, without bulk; multiple of 8 */
	uint16_t call;    /* enum bf_operation, or a row number from calls.h */
	uint16_t flags;   /* enum bf_command_flags */
	uint32_t request; /* not 0 when a reply is wanted */
	uint32_t context; /* index of the calling thread's current context, 0 for none */
};

/* Commands that are not one row of the API. Rows start at BF_FIRST_ROW. */
enum bf_operation {
	BF_OP_NONE,
	BF_OP_DEVICES,        /* sync: everything about the session's devices, in one reply */
	BF_OP_LAUNCH,         /* struct bf_launch */
	BF_OP_HTOD,           /* struct bf_copy with bulk: host to device */
	BF_OP_DTOH,           /* struct bf_copy: device to host, answered with BF_DATA then BF_REPLY */
	BF_OP_COPY3D,         /* struct bf_copy3d, any of 2D/3D; bulk when the source is the host */
	BF_OP_ALLOC,          /* struct bf_alloc: every allocation of device memory (not VMM, not pools) */
	BF_OP_FREE,           /* struct bf_free */
	BF_OP_LOAD,           /* struct bf_load with bulk: a code image */
	BF_OP_GET_FUNCTION,   /* struct bf_get_function: function or kernel by name, with its layout */
	BF_OP_HOST_FUNCTION,  /* struct bf_host_function */
	BF_OP_CALLBACK_DONE,  /* struct bf_callback_done: the program's function has returned */
	BF_OP_MEMORY_INFO,    /* sync: body empty; reply uint64_t free, total of the context's device (the slice) */
	BF_OP_GOODBYE,        /* the program ends in good order; nothing follows */
	BF_OP_LATE,           /* struct bf_late with bulk: answers a BF_FETCH */
	BF_OP_PROGRESS,       /* struct bf_progress: BF_PROGRESS comes when the stream has got there */
	BF_OP_REFRESH,        /* struct bf_refresh: device to host, as BF_OP_DTOH, but only what the client has not */
	BF_OP_KERNEL_NODE, /* struct bf_node: what a kernel node of a graph has; replies struct bf_kernel_node of row.h */
	BF_OP_PROGRAM_NODE, /* struct bf_node: what a node has of the program; replies struct bf_program_node */
	BF_OP_GRAPH_SHAPE, /* struct bf_node, of a graph: replies struct bf_graph_shape */
	BF_FIRST_ROW = 64
};

/* Packed parameters follow the attributes; the executor passes them as CU_LAUNCH_PARAM_BUFFER_POINTER. */
struct bf_launch {
	uint64_t function; /* BF_FUNCTION or BF_KERNEL handle */
	uint64_t stream;
	uint32_t grid[3], block[3];
	uint32_t shared_bytes;
	uint32_t parameters_size; /* bytes, padded to 8 on the wire */
	uint32_t attribute_count; /* of CUlaunchAttribute, 72 bytes each, right after this struct */
	uint32_t kind; /* enum bf_launch_kind */
};
enum bf_launch_kind { BF_LAUNCH_PLAIN, BF_LAUNCH_EX, BF_LAUNCH_COOPERATIVE };

/* HTOD: bulk_size == size, or 0 with `late`. A copy that CUDA calls asynchronous has async set (the stream is then
 * `stream`); the synchronous form runs on the legacy stream, or the per-thread one the client substituted.
 * `late`, which only an asynchronous copy to the device may have, is the client's number for a source that must not
 * be read before the stream gets there: the executor asks for the bytes then. 0 for none. */
struct bf_copy {
	uint64_t bulk_size; /* HTOD: size; DTOH: 0 */
	uint64_t device;
	uint64_t size;
	uint64_t stream;
	uint32_t async;
	uint32_t late;
};

/* A uint64_t follows for each started BF_REFRESH_PIECE: the digest (digest.h) of what the client has. Answered with BF_DATA
 * of those that differ, then a reply whose body is a uint64_t: bit i is set when piece i did. At most BF_MAX_REFRESH bytes. */
struct bf_refresh {
	uint64_t device;
	uint64_t size;
	uint64_t stream;
};
#define BF_REFRESH_PIECES(size) (((size) + BF_REFRESH_PIECE - 1) / BF_REFRESH_PIECE)

/* `shape` is CUDA_MEMCPY3D_v2 (verbatim layout). A host side has been packed by the client: its pitch is
 * WidthInBytes, its height Height, its offsets 0; its pointer is ignored. Host to host never travels. */
struct bf_copy3d {
	uint64_t bulk_size; /* bytes of the packed source when it is the host and not late, else 0 */
	uint64_t stream;
	uint32_t async;
	uint32_t late;
	/* CUDA_MEMCPY3D_v2 shape follows */
};

/* Reply body: uint64_t address, uint64_t pitch. */
struct bf_alloc {
	uint64_t size; /* bytes; or width when pitched */
	uint64_t height; /* 0: not pitched */
	uint32_t element_size; /* pitched only */
	uint32_t rejected_count; /* addresses that follow (uint64_t each): a program mapping lies there,
	                                     * so give another address and free these */
};

struct bf_free {
	uint64_t address;
};

enum bf_load_kind { BF_LOAD_MODULE, BF_LOAD_LIBRARY, BF_LOAD_LINK, BF_LOAD_LINK_CREATE, BF_LOAD_LINK_COMPLETE };
/* After this struct: option_count CUjit_option (uint32_t, padded to 8), option_count uint64_t values, then
 * library_option_count of the same two. Then bulk: the image (rebuilt from wrapper or pointer to plain bytes). With
 * input_count, which only MODULE and LIBRARY may have, the image was linked from so many inputs, of which the driver
 * may make what the image is not: the bulk begins with 1 + input_count uint64_t, the size of the image and of each
 * input; these follow, each padded to 8.
 * JIT log options: the value is the buffer's capacity; the reply body holds uint64_t size + text of
 * the info log, then of the error log (text padded to 8). LINK adds an input: `handle` is the CUlinkState, name
 * follows as text_size bytes. LINK_CREATE mints it (no image). LINK_COMPLETE: BF_DATA frames carry the linked image
 * from offset 0, then the reply's body is the two logs and uint64_t image size. */
struct bf_load {
	uint64_t bulk_size;
	uint64_t handle; /* minted for the module or library, or the link state */
	uint32_t kind;
	uint32_t input_type; /* CUjitInputType, LINK only */
	uint32_t option_count;
	uint32_t library_option_count;
	uint32_t text_size; /* padded to 8 */
	uint32_t input_count;
};

/* The name follows: text_size bytes with its NUL, zero padded to 8. Reply body: struct bf_function_info.
 * Without a name the place counts: then nothing is loaded, no attribute is known, and the reply brings the name. */
struct bf_get_function {
	uint64_t parent; /* BF_MODULE (cuModuleGetFunction), BF_LIBRARY (cuLibraryGetKernel), or BF_KERNEL with
	                    * text_size 0 (cuKernelGetFunction) */
	uint64_t proposed; /* handle minted by the client, used if the driver's handle is not known yet */
	uint32_t text_size;
	uint32_t place; /* 1 + its place among all of the module or library; 0: by name */
};

/* offsets and sizes follow: parameter_count × {uint32_t offset, uint32_t size}; then the name */
struct bf_function_info {
	uint64_t handle;
	uint32_t parameter_count;
	uint32_t parameters_size; /* bytes of the whole packed buffer */
	int32_t attribute[BF_FUNCTION_ATTRIBUTES];
	uint32_t attribute_valid; /* bit i: attribute[i] is known */
	uint32_t name_size; /* 0, or bytes of the name with its NUL, zero padded to 8 */
};

struct bf_host_function {
	uint64_t stream;
	uint64_t function; /* a number of the client's, which the callback brings back; never an address */
	uint64_t data; /* the same, not used today */
	uint32_t kind; /* 0 cuLaunchHostFunc, 1 cuStreamAddCallback */
	uint32_t zero;
};

/* This and the next may be taken out of turn: a stream waits for them, and the executor may be waiting for that. */
struct bf_callback_done {
	uint64_t token;
};

struct bf_late {
	uint64_t bulk_size; /* as asked for, or 0: the client has no such source */
	uint64_t token;
};

struct bf_node {
	uint64_t node;
};

/* Of a node that is a host function or a copy. */
struct bf_program_node {
	uint64_t graph; /* the client's number of the graph that the node is known to be in */
	uint64_t function; /* of a host function: the client's number for it; else 0 */
	uint8_t copy[200]; /* of a copy: CUDA_MEMCPY3D; without addresses of the host, arrays by the client's numbers */
};

/* The order of a graph's nodes. Those of graphs inside it are nodes of it, with one more ahead of them and one behind.
 * After this struct: `marked` struct bf_marked_node, then `edges` pairs of uint32_t, each of two places below `nodes`. */
struct bf_graph_shape {
	uint32_t nodes, marked, edges, zero;
};

/* A host function, or a copy between linear memory. */
struct bf_marked_node {
	uint32_t place;
	uint32_t type; /* CUgraphNodeType */
	uint64_t node; /* the client's number */
	uint64_t from, to; /* of a copy: the addresses; of a host function: `from` is the client's number for it */
};

struct bf_progress {
	uint64_t stream;
};

/* ------------------------------------------------------------------ server to client */

enum bf_reply_kind {
	BF_REPLY, /* ends request `request`; body as its call defines */
	BF_DATA, /* struct bf_data, then its bytes: part of request `request`'s destination */
	BF_CALLBACK, /* struct bf_callback: run the program's function */
	BF_OUTPUT, /* struct bf_output, then text padded to 8: device printf (fd 1) or driver messages (fd 2) */
	BF_FETCH, /* struct bf_fetch: a stream has got to a copy whose source is to be read late; send the bytes */
	BF_PROGRESS, /* no body: answers a BF_OP_PROGRESS, also where the stream failed; brings no deferred failure */
};

struct bf_reply {
	uint32_t size; /* header and body, without the bytes of BF_DATA; multiple of 8 */
	uint32_t kind;
	uint32_t request;
	int32_t status; /* CUresult of this call */
	int32_t deferred; /* CUresult of the first one-way command that failed since the last BF_REPLY, or 0 */
	uint32_t deferred_call; /* and which call it was */
};

struct bf_data {
	uint64_t offset; /* into the destination */
	uint64_t size; /* raw bytes that follow */
};

struct bf_callback {
	uint64_t token, function, data, stream;
	uint32_t kind;
	int32_t status; /* for cuStreamAddCallback */
};

struct bf_fetch {
	uint64_t token;
	uint64_t offset, size; /* of the source, packed if it is a box; at most BF_MAX_FETCH at once */
	uint32_t source; /* `late` of the copy */
	uint32_t last; /* nothing more will be asked of it */
};

struct bf_output {
	uint32_t fd;
	uint32_t size; /* bytes of text, unpadded */
};

/* Reply body of BF_OP_DEVICES: this, then count × struct bf_device. */
struct bf_devices {
	int32_t driver_version;
	uint32_t count;
};

struct bf_device {
	char name[256];
	char pci_bus_id[32];
	uint8_t uuid[16];
	uint64_t total_memory; /* bytes: of the slice */
	uint64_t used_memory; /* bytes: by all processes of the session, now; 0 where there are no slices */
	int32_t least_priority, greatest_priority;
	struct {
		int32_t status; /* CUresult */
		int32_t value;
	} attribute[BF_DEVICE_ATTRIBUTES];
};

#endif
