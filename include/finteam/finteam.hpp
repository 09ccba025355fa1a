// finteam: a team of role experts, language models that run inside your process, mixed by a gate.
// This header is the whole library; README.md has the first program.
#pragma once

#include <finteam/core/checked.hpp>
#include <finteam/core/config.hpp>
#include <finteam/core/delta.hpp>
#include <finteam/core/dtype.hpp>
#include <finteam/core/eigen.hpp>
#include <finteam/core/error.hpp>
#include <finteam/core/huge_pages.hpp>
#include <finteam/core/interrupt.hpp>
#include <finteam/core/tensor.hpp>
#include <finteam/core/view.hpp>

#include <finteam/backend/backend.hpp>
#include <finteam/backend/cpu.hpp>
#include <finteam/backend/executor.hpp>
#include <finteam/backend/reference.hpp>
#include <finteam/backend/thread_pool.hpp>
#include <finteam/expert/decoder.hpp>
#include <finteam/file/checkpoint.hpp>
#include <finteam/file/config.hpp>
#include <finteam/file/delta.hpp>
#include <finteam/file/delta_writer.hpp>
#include <finteam/file/safetensors.hpp>
#include <finteam/mix/attribution.hpp>
#include <finteam/mix/calibration.hpp>
#include <finteam/mix/conformal.hpp>
#include <finteam/mix/gate.hpp>
#include <finteam/mix/likeliest.hpp>
#include <finteam/mix/logistic_regression.hpp>
#include <finteam/mix/mixture.hpp>
#include <finteam/mix/running_performance.hpp>
#include <finteam/team/fit_calibration.hpp>
#include <finteam/team/fit_gate.hpp>
#include <finteam/team/plan.hpp>
#include <finteam/team/session.hpp>
#include <finteam/team/team.hpp>
#include <finteam/text/chat.hpp>
#include <finteam/text/sampler.hpp>
#include <finteam/text/tokenizer.hpp>
