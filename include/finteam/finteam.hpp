// finteam: everything a program needs, room by room.
// Not here: what is opt-in (backend/cuda).
#pragma once

#include <finteam/core/checked.hpp>
#include <finteam/core/config.hpp>
#include <finteam/core/dtype.hpp>
#include <finteam/core/eigen.hpp>
#include <finteam/core/error.hpp>
#include <finteam/core/tensor.hpp>
#include <finteam/core/view.hpp>

#include <finteam/backend/backend.hpp>
#include <finteam/backend/executor.hpp>
