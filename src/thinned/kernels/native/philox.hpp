// One round of Philox4x32 (contract 1 of docs/design.md), for one counter or a vector of them.
#pragma once
#include <cstdint>

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(THINNED_NEON)
#include <arm_neon.h>
#endif

namespace thinned {
namespace {

constexpr uint64_t LOW = 0xFFFFFFFFu;
constexpr uint64_t M0 = 0xD2511F53u, M1 = 0xCD9E8D57u;  // the multipliers
constexpr uint32_t W0 = 0x9E3779B9u, W1 = 0xBB67AE85u;  // the steps of the key from round to round

struct Schedule {  // the ten round keys
    uint32_t a[10], b[10];
    Schedule(uint32_t k0, uint32_t k1) {
        for (int r = 0; r < 10; ++r) a[r] = k0 + r * W0, b[r] = k1 + r * W1;
    }
};

// 32 x 32 -> 64 bits; the upper halves of a and b are ignored.
inline uint64_t product(uint64_t a, uint64_t b) { return (a & LOW) * (b & LOW); }
#if defined(__AVX512F__)
typedef uint64_t Eight __attribute__((vector_size(64)));
inline Eight product(Eight a, Eight b) { return (Eight)_mm512_mul_epu32((__m512i)a, (__m512i)b); }
#elif defined(__AVX2__)
typedef uint64_t Four __attribute__((vector_size(32)));
inline Four product(Four a, Four b) { return (Four)_mm256_mul_epu32((__m256i)a, (__m256i)b); }
#elif defined(THINNED_NEON)
typedef uint64_t Two __attribute__((vector_size(16)));
inline Two product(Two a, Two b) { return (Two)vmull_u32(vmovn_u64((uint64x2_t)a), vmovn_u64((uint64x2_t)b)); }
#endif

// Words are the lower halves of 64-bit numbers. The upper halves mean nothing: mask them after the last round.
template <class Lanes>
inline void philox_round(Lanes &c0, Lanes &c1, Lanes &c2, Lanes &c3, Lanes a, Lanes b) {
    const Lanes q0 = product(c0, Lanes{} + M0), q1 = product(c2, Lanes{} + M1);
    c0 = (q1 >> 32) ^ c1 ^ a;
    c1 = q1;
    c2 = (q0 >> 32) ^ c3 ^ b;
    c3 = q0;
}

#ifdef THINNED_NEON
// Lower and upper halves of m times each word.
inline void product(uint32x4_t words, uint32_t m, uint32x4_t &low, uint32x4_t &high) {
    const uint32x4_t first = vreinterpretq_u32_u64(vmull_n_u32(vget_low_u32(words), m));
    const uint32x4_t last = vreinterpretq_u32_u64(vmull_high_n_u32(words, m));
    low = vuzp1q_u32(first, last);
    high = vuzp2q_u32(first, last);
}

// The same round for words that lie close together, four counters in a register.
inline void philox_round(uint32x4_t &c0, uint32x4_t &c1, uint32x4_t &c2, uint32x4_t &c3, uint32x4_t a, uint32x4_t b) {
    uint32x4_t low0, high0, low1, high1;
    product(c0, (uint32_t)M0, low0, high0);
    product(c2, (uint32_t)M1, low1, high1);
    c0 = high1 ^ c1 ^ a;
    c1 = low1;
    c2 = high0 ^ c3 ^ b;
    c3 = low0;
}
#endif

}  // namespace
}  // namespace thinned
