// So that <finteam/finteam.hpp> is found with -Isingle_include alone.
#pragma once
#include "../finteam.hpp"
