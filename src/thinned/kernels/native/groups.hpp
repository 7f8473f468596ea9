// What the products of groups of rows share.
#pragma once
#include "select.hpp"
#include "tiles.hpp"

#include <algorithm>

namespace thinned {
namespace THINNED_LEVEL {
namespace {

constexpr int64_t EDGE = 4;   // of a square that is transposed in registers
constexpr int64_t LINE = 64;  // bytes

template <class T>
constexpr int64_t LANES = Vector<T>::lanes;

// Numbers that are used soon come into the caches meanwhile.
template <class T>
inline void fetch(const T *from, int64_t n) {
#if defined(__GNUC__)
    for (int64_t i = 0; i < n; i += LINE / (int64_t)sizeof(T)) __builtin_prefetch(from + i);
#endif
}

// Where in an ascending list of units those below `unit` end.
inline int64_t below(const Side &side, int64_t group, int64_t unit) {
    if (!side.index) return unit;
    const int32_t *list = side.index + group * side.width;
    return std::lower_bound(list, list + side.count[group], unit) - list;
}

// A square of EDGE × EDGE numbers: to[i][j] = from[j][i].
template <class T>
void transpose(const T *const *from, int64_t at, T *to, int64_t to_row) {
#if defined(__GNUC__) && !defined(__clang__)
    typedef T Four __attribute__((vector_size(EDGE * sizeof(T))));
    typedef std::conditional_t<sizeof(T) == 4, int32_t, int64_t> Place __attribute__((vector_size(EDGE * sizeof(T))));
    Four a[EDGE];
    for (int i = 0; i < EDGE; ++i) std::memcpy(&a[i], from[i] + at, sizeof(Four));
    const Four low01 = __builtin_shuffle(a[0], a[1], Place{0, 4, 1, 5}), high01 = __builtin_shuffle(a[0], a[1], Place{2, 6, 3, 7});
    const Four low23 = __builtin_shuffle(a[2], a[3], Place{0, 4, 1, 5}), high23 = __builtin_shuffle(a[2], a[3], Place{2, 6, 3, 7});
    const Place first = {0, 1, 4, 5}, second = {2, 3, 6, 7};
    const Four out[EDGE] = {__builtin_shuffle(low01, low23, first), __builtin_shuffle(low01, low23, second),
                            __builtin_shuffle(high01, high23, first), __builtin_shuffle(high01, high23, second)};
    for (int i = 0; i < EDGE; ++i) std::memcpy(to + i * to_row, &out[i], sizeof(Four));
#else
    for (int i = 0; i < EDGE; ++i)
        for (int j = 0; j < EDGE; ++j) to[i * to_row + j] = from[j][at + i];
#endif
}

}  // namespace
}  // namespace THINNED_LEVEL
}  // namespace thinned
