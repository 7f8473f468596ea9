// What one compiled level (plain, avx2, avx512) offers to cpu.cpp. See kernel.cpp for the method.
#pragma once
#include <cstdint>

namespace thinned {

struct Draw {            // which Bernoulli bits: contract 1 of docs/design.md
    uint32_t k0, k1;     // the key's words
    uint64_t limit;      // kept where U < limit; 0 <= limit <= 2**32
};

// Units start ... start + n - 1: out = kept ? x * scale : 0. `out` may be `x`.
struct Level {
    const char *name;
    void (*mask)(uint8_t *out, uint64_t start, int64_t n, Draw draw);
    void (*dropout_f32)(const float *x, float *out, uint64_t start, int64_t n, Draw draw, float scale);
    void (*dropout_f64)(const double *x, double *out, uint64_t start, int64_t n, Draw draw, double scale);
};

namespace plain { extern const Level level; }
#ifdef THINNED_X86
namespace avx2 { extern const Level level; }
namespace avx512 { extern const Level level; }
#endif

}  // namespace thinned
