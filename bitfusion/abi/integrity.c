/* SPDX-License-Identifier: Apache-2.0
 *
 * The integrity handshake of the CUDA runtime, and why it is here.
 *
 * Every CUDA runtime since 12.1 (also the copies inside cuBLAS, cuDNN, NCCL and CuPy) asks the driver at start
 * for a keyed hash of facts about this very process: its pid, a thread, addresses of tables it was given,
 * the devices it was shown. It refuses every later call with error 103 when the answer differs from its own.
 * The answer cannot come from a remote driver, because the facts are those of the client. A program that runs
 * unmodified therefore needs this file; nothing else of Bitfusion depends on it.
 *
 * The construction is public: HMAC (RFC 2104) over MD2 (RFC 1319), with the key and the message layout that
 * open-source drop-in drivers publish; it was confirmed by black-box tests against runtimes 12.1 to 13.2.
 */
#include "tables.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>

enum { BLOCK = 16, ROUNDS = 18 };

/* RFC 1319: a permutation of 0…255 drawn with the digits of pi. */
static const uint8_t substitution[256] = {
	41,  46,  67,  201, 162, 216, 124, 1,   61,  54,  84,  161, 236, 240, 6,   19,  98,  167, 5,   243, 192, 199,
	115, 140, 152, 147, 43,  217, 188, 76,  130, 202, 30,  155, 87,  60,  253, 212, 224, 22,  103, 66,  111, 24,
	138, 23,  229, 18,  190, 78,  196, 214, 218, 158, 222, 73,  160, 251, 245, 142, 187, 47,  238, 122, 169, 104,
	121, 145, 21,  178, 7,   63,  148, 194, 16,  137, 11,  34,  95,  33,  128, 127, 93,  154, 90,  144, 50,  39,
	53,  62,  204, 231, 191, 247, 151, 3,   255, 25,  48,  179, 72,  165, 181, 209, 215, 94,  146, 42,  172, 86,
	170, 198, 79,  184, 56,  210, 150, 164, 125, 182, 118, 252, 107, 226, 156, 116, 4,   241, 69,  157, 112, 89,
	100, 113, 135, 32,  134, 91,  207, 101, 230, 45,  168, 2,   27,  96,  37,  173, 174, 176, 185, 246, 28,  70,
	97,  105, 52,  64,  126, 15,  85,  71,  163, 35,  221, 81,  175, 58,  195, 92,  249, 206, 186, 197, 234, 38,
	44,  83,  13,  110, 133, 40,  132, 9,   211, 223, 205, 244, 65,  129, 77,  82,  106, 220, 55,  200, 108, 193,
	171, 250, 36,  225, 123, 8,   12,  189, 177, 74,  120, 136, 149, 139, 227, 99,  232, 109, 233, 203, 213, 254,
	59,  0,   29,  57,  242, 239, 183, 14,  102, 88,  208, 228, 166, 119, 114, 248, 235, 117, 75,  10,  49,  68,
	80,  180, 143, 237, 31,  26,  219, 153, 141, 51,  159, 17,  131, 20,
};

struct md2 {
	uint8_t state[BLOCK], checksum[BLOCK], pending[BLOCK];
	unsigned used; /* bytes of pending */
};

static void md2_compress(uint8_t state[BLOCK], const uint8_t block[BLOCK])
{
	uint8_t x[3 * BLOCK];
	unsigned t = 0;

	for (int i = 0; i < BLOCK; i++) {
		x[i] = state[i];
		x[BLOCK + i] = block[i];
		x[2 * BLOCK + i] = state[i] ^ block[i];
	}
	for (unsigned round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < 3 * BLOCK; i++)
			t = x[i] ^= substitution[t];
		t = (t + round) & 0xff;
	}
	memcpy(state, x, BLOCK);
}

static void md2_block(struct md2 *m, const uint8_t block[BLOCK])
{
	uint8_t last = m->checksum[BLOCK - 1];

	for (int i = 0; i < BLOCK; i++)
		last = m->checksum[i] ^= substitution[block[i] ^ last];
	md2_compress(m->state, block);
}

static void md2_add(struct md2 *m, const void *bytes, size_t size)
{
	const uint8_t *next = bytes;

	while (size--) {
		m->pending[m->used++] = *next++;
		if (m->used == BLOCK) {
			md2_block(m, m->pending);
			m->used = 0;
		}
	}
}

static void md2_finish(struct md2 *m, uint8_t digest[BLOCK])
{
	unsigned padding = BLOCK - m->used;

	memset(m->pending + m->used, (int)padding, padding);
	md2_block(m, m->pending);
	md2_compress(m->state, m->checksum);
	memcpy(digest, m->state, BLOCK);
}

static const uint8_t key[BLOCK] = { 0x14, 0x6a, 0xdd, 0xae, 0x53, 0xa9, 0xa7, 0x52,
				    0xaa, 0x08, 0x41, 0x36, 0x0b, 0xf5, 0x5a, 0x9f };

static void hmac_start(struct md2 *m, uint8_t pad)
{
	uint8_t block[BLOCK];

	memset(m, 0, sizeof *m);
	for (int i = 0; i < BLOCK; i++)
		block[i] = key[i] ^ pad;
	md2_add(m, block, BLOCK);
}

static void add_facts(struct md2 *m, uint32_t version, uint64_t unix_seconds)
{
	uint32_t head[] = { (uint32_t)abi_host.driver_version(), version, (uint32_t)getpid(),
			    (uint32_t)(uintptr_t)pthread_self() };
	uint64_t body[] = { (uintptr_t)abi_table_cudart, (uintptr_t)abi_table_integrity,
			    (uintptr_t)abi_table_integrity[1], unix_seconds };
	int devices = abi_host.device_count();

	md2_add(m, head, sizeof head);
	md2_add(m, body, sizeof body);
	for (int device = 0; device < devices; device++) {
		uint8_t uuid[16];
		uint32_t pci[3];

		abi_host.device_identity(device, uuid, pci);
		md2_add(m, uuid, sizeof uuid);
		md2_add(m, pci, sizeof pci);
	}
}

CUresult abi_integrity_check(uint32_t version, uint64_t unix_seconds, uint8_t result[BLOCK])
{
	uint8_t inner[BLOCK];
	struct md2 m;

	hmac_start(&m, 0x36);
	add_facts(&m, version, unix_seconds);
	md2_finish(&m, inner);
	hmac_start(&m, 0x5c);
	md2_add(&m, inner, sizeof inner);
	md2_finish(&m, result);
	return CUDA_SUCCESS;
}
