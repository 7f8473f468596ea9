// One round of Philox4x32 (contract 1 of docs/design.md), for one counter or a vector of them.
#pragma once
#include <cstdint>

#ifdef __AVX2__
#include <immintrin.h>
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

}  // namespace
}  // namespace thinned
