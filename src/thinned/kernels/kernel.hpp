// The kernels, each compiled for every level of the instruction set (plain, avx2, avx512), and the table
// of a level through which cpu.cpp calls them. Arrays are addresses of contiguous memory.
#pragma once
#include <cstdint>

namespace thinned {

struct Draw {            // which Bernoulli bits: contract 1 of docs/design.md
    uint32_t k0, k1;     // the key's words
    uint64_t limit;      // kept where U < limit; 0 <= limit <= 2**32
};

enum class DType : int { float32 = 0, float64 = 1, float16 = 2, bfloat16 = 3 };

struct Level {
    const char *name;
    // Units start ... start + n - 1: 1 where kept, 0 where dropped.
    void (*mask)(uint8_t *out, uint64_t start, int64_t n, Draw draw);
    // The same units: out = kept ? x * scale : 0. `out` may be `x`.
    void (*dropout)(DType dtype, const void *x, void *out, uint64_t start, int64_t n, Draw draw, double scale);
};

#define THINNED_LEVEL_OF(level)                                                                                        \
    namespace level {                                                                                                  \
    void mask(uint8_t *out, uint64_t start, int64_t n, Draw draw);                                                     \
    void dropout(DType dtype, const void *x, void *out, uint64_t start, int64_t n, Draw draw, double scale);           \
    inline constexpr Level table{#level, mask, dropout};                                                               \
    }

THINNED_LEVEL_OF(plain)
#ifdef THINNED_X86
THINNED_LEVEL_OF(avx2)
THINNED_LEVEL_OF(avx512)
#endif
#undef THINNED_LEVEL_OF

}  // namespace thinned
