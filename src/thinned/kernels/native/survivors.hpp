// The surviving rows and columns of a weight: see survivors.cpp.
#pragma once
#include <nanobind/nanobind.h>

void bind_survivors(nanobind::module_ &m);
