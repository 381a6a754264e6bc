/* SPDX-License-Identifier: Apache-2.0
 *
 * The handlers by opcode, for the CPU that this runs on.
 */
#include "generated/opcodes.h"
#include "internal.h"

#include <stdlib.h>
#include <string.h>

#define SIGNATURE(name, d, a, b, c, check) { #name, { d, a, b, c }, check },
const struct sg_signature sg_signatures[] = { SG_OPCODES(SIGNATURE) };

#define DECLARE(name, ...) const struct sg_op *sg_run_##name(struct sg_warp *, const struct sg_op *, uint32_t);
#define ENTRY(name, ...) sg_run_##name,
SG_OPCODES(DECLARE)
static const sg_handler baseline[] = { SG_OPCODES(ENTRY) };

#if defined(__x86_64__) && !defined(SG_BASELINE_ONLY)
#include <cpuid.h>

#define DECLARE_V3(name, ...) const struct sg_op *sg_run_##name##_v3(struct sg_warp *, const struct sg_op *, uint32_t);
#define ENTRY_V3(name, ...) sg_run_##name##_v3,
SG_OPCODES(DECLARE_V3)
static const sg_handler v3[] = { SG_OPCODES(ENTRY_V3) };

/* "baseline" in it chooses the handlers of old CPUs on any. */
#define CHOICE "BITFUSION_SOFTGPU_CPU"

static bool has_v3(void)
{
	const char *choice = getenv(CHOICE);
	unsigned a, b, c, d, low, high;

	if (choice && !strcmp(choice, "baseline"))
		return false;
	if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_FMA) || !(c & bit_OSXSAVE) || !(c & bit_MOVBE) ||
	    !(c & bit_F16C))
		return false;
	__asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	if ((low & 6) != 6 || !__get_cpuid_count(7, 0, &a, &b, &c, &d))
		return false;
	if (!(b & bit_AVX2) || !(b & bit_BMI) || !(b & bit_BMI2))
		return false;
	return __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & 1u << 5); /* lzcnt */
}
#endif

const sg_handler *sg_handlers(void)
{
#if defined(__x86_64__) && !defined(SG_BASELINE_ONLY)
	return has_v3() ? v3 : baseline;
#else
	return baseline;
#endif
}

const char *sg_handler_set(void)
{
	return sg_handlers() == baseline ? "baseline" : "v3";
}
