// Products whose rows keep units of their own: see products.cpp.
#pragma once
#include <nanobind/nanobind.h>

void bind_products(nanobind::module_ &m);
