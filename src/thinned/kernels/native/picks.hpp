// Which units survive: see picks.cpp.
#pragma once
#include <nanobind/nanobind.h>

void bind_picks(nanobind::module_ &m);
