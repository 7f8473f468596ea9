// Threads for one call.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <system_error>
#include <thread>
#include <vector>

namespace thinned {

// The OpenMP threads that a loaded torch computes with, if it does. They go on spinning for a while after a matrix
// product, and would keep threads of our own from the cores.
struct Team {
    void (*run)(void (*)(void *), void *, unsigned, unsigned);
    int (*me)(), (*size)();
};
const Team *team_of_torch();  // null where there is none, and in a process that was forked, whose team is gone

// Runs work(begin, end) over [0, n) in equal parts, each a multiple of `align`. Threads are started for the
// call and joined, so nothing outlives it and a fork is safe; a negative number is so many of torch's.
// Below `grain` a thread costs more than it saves.
template <class Work>
void split(int64_t n, int64_t grain, int64_t align, int threads, Work work) {
    const int64_t parts = std::clamp<int64_t>(n / std::max<int64_t>(grain, 1), 1, std::max(std::abs(threads), 1));
    const int64_t size = std::max<int64_t>(((n + parts - 1) / parts + align - 1) / align * align, 1);
    if (parts == 1) return work(0, n);
    if (const Team *team = threads < 0 ? team_of_torch() : nullptr) {
        struct Job {
            const Team *team;
            const Work &work;
            int64_t n, size;
        } job{team, work, n, size};
        return team->run(
            [](void *data) {
                const Job &job = *static_cast<const Job *>(data);
                for (int64_t begin = job.team->me() * job.size; begin < job.n; begin += job.team->size() * job.size)
                    job.work(begin, std::min(begin + job.size, job.n));
            },
            &job, (unsigned)parts, 0);
    }
    std::vector<std::thread> crew;
    for (int64_t begin = size; begin < n; begin += size) {
        const int64_t end = std::min(begin + size, n);
        try {
            crew.emplace_back([=] { work(begin, end); });
        } catch (const std::system_error &) {  // no thread to be had: do it here
            work(begin, end);
        }
    }
    work(0, std::min(size, n));
    for (std::thread &thread : crew) thread.join();
}

}  // namespace thinned
