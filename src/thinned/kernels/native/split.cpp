// Finds torch's OpenMP team at run time, without linking to it.

#include "split.hpp"

#if defined(__unix__) || defined(__APPLE__)
#include <dlfcn.h>
#include <pthread.h>
#endif

namespace thinned {

#if defined(__unix__) || defined(__APPLE__)
namespace {

bool forked = false;
const int watched = pthread_atfork(nullptr, nullptr, [] { forked = true; });

template <class Function>
void find(Function &function, const char *name) {
    function = reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
}

}  // namespace

const Team *team_of_torch() {
    static const Team team = [] {
        Team found;
        find(found.run, "GOMP_parallel");
        find(found.me, "omp_get_thread_num");
        find(found.size, "omp_get_num_threads");
        return found;
    }();
    return watched == 0 && !forked && team.run && team.me && team.size ? &team : nullptr;
}
#else
const Team *team_of_torch() { return nullptr; }
#endif

}  // namespace thinned
