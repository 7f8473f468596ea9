// An optimizer's step for a stretch of a parameter. Rules are rounded operation by operation, in the order of the NumPy
// rules in survivors.py: no fused multiply-add, the same bits at each level.

#include "kernel.hpp"

#include <cmath>
#include <type_traits>

namespace thinned {
namespace THINNED_LEVEL {
namespace {

// ∂/∂w of l1·|w| + l2/2·w², added to the gradient.
template <bool L1, bool L2, class T>
inline T penalized(T g, T w, T l1, T l2) {
    if (L1) g += l1 * (w != w ? w : (T)((w > 0) - (w < 0)));
    if (L2) g += l2 * w;
    return g;
}

// Picks the rule that is compiled for these penalties.
template <class Call>
void with_penalties(double l1, double l2, Call call) {
    const std::true_type yes;
    const std::false_type no;
    if (l1 != 0)
        l2 != 0 ? call(yes, yes) : call(yes, no);
    else
        l2 != 0 ? call(no, yes) : call(no, no);
}

template <class L1, class L2, class T>
void plain(T *__restrict w, const T *__restrict g, int64_t n, const Descent &rule) {
    const T lr = (T)rule.lr, l1 = (T)rule.l1, l2 = (T)rule.l2;
    for (int64_t i = 0; i < n; ++i) w[i] -= lr * penalized<L1::value, L2::value>(g[i], w[i], l1, l2);
}

template <bool NESTEROV, class L1, class L2, class T>
void momentum(T *__restrict w, T *__restrict v, const T *__restrict g, int64_t n, const Descent &rule) {
    const T lr = (T)rule.lr, mu = (T)rule.momentum, l1 = (T)rule.l1, l2 = (T)rule.l2;
    for (int64_t i = 0; i < n; ++i) {
        const T grad = penalized<L1::value, L2::value>(g[i], w[i], l1, l2);
        const T speed = v[i] * mu + grad;
        v[i] = speed;
        w[i] -= (NESTEROV ? speed * mu + grad : speed) * lr;
    }
}

template <class T>
void descend(T *w, T *v, const T *g, int64_t n, const Descent &rule) {
    with_penalties(rule.l1, rule.l2, [=, &rule](auto l1, auto l2) {
        using L1 = decltype(l1);
        using L2 = decltype(l2);
        if (rule.momentum == 0)
            plain<L1, L2>(w, g, n, rule);
        else if (rule.nesterov)
            momentum<true, L1, L2>(w, v, g, n, rule);
        else
            momentum<false, L1, L2>(w, v, g, n, rule);
    });
}

template <class L1, class L2, class T>
void moments(T *__restrict w, T *__restrict m, T *__restrict v, const T *__restrict g, int64_t n, const Moments &rule) {
    const T b1 = (T)rule.beta1, b2 = (T)rule.beta2, c1 = (T)rule.rest1, c2 = (T)rule.rest2;
    const T rate = (T)rule.rate, eps = (T)rule.eps, keep = (T)rule.keep, l1 = (T)rule.l1, l2 = (T)rule.l2;
    for (int64_t i = 0; i < n; ++i) {
        const T grad = penalized<L1::value, L2::value>(g[i], w[i], l1, l2);
        const T mean = m[i] * b1 + grad * c1, square = v[i] * b2 + grad * grad * c2;
        m[i] = mean;
        v[i] = square;
        w[i] = w[i] * keep - mean / (std::sqrt(square) + eps) * rate;
    }
}

template <class T>
void adam(T *w, T *m, T *v, const T *g, int64_t n, const Moments &rule) {
    with_penalties(rule.l1, rule.l2, [=, &rule](auto l1, auto l2) { moments<decltype(l1), decltype(l2)>(w, m, v, g, n, rule); });
}

}  // namespace

void descend(DType dtype, void *w, void *v, const void *g, int64_t n, const Descent &rule) {
    if (dtype == DType::float32) descend((float *)w, (float *)v, (const float *)g, n, rule);
    if (dtype == DType::float64) descend((double *)w, (double *)v, (const double *)g, n, rule);
}

void adam(DType dtype, void *w, void *m, void *v, const void *g, int64_t n, const Moments &rule) {
    if (dtype == DType::float32) adam((float *)w, (float *)m, (float *)v, (const float *)g, n, rule);
    if (dtype == DType::float64) adam((double *)w, (double *)m, (double *)v, (const double *)g, n, rule);
}

}  // namespace THINNED_LEVEL
}  // namespace thinned
