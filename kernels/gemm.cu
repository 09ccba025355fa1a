// Products of many rows by cuBLASLt, in bf16 with sums in float. A matrix's shape has one algorithm, chosen for a full
// step and then kept for every number of rows, without splits of k: so a row's sums are taken in one order (law 3). It
// gets no workspace, without which blocks cannot hand each other parts of a sum.
// Bound by the tensor cores: 2 · rows · n · k operations.
#include "context.cuh"

namespace finteam::cuda_v0_1 {
namespace {

/// Rows that algorithms are chosen for.
inline constexpr int chosen_for_rows = 2048;

/// cuBLASLt's descriptions of z [rows, n] = x [rows, k] · w [n, k]ᵀ. It counts columns first: zᵀ = w · xᵀ.
class Description {
 public:
  explicit Description(const Gemm& p, std::int32_t rows) noexcept {
    const cublasOperation_t transposed = CUBLAS_OP_T;
    keep(cublasLtMatmulDescCreate(&operation, CUBLAS_COMPUTE_32F, CUDA_R_32F));
    keep(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof(transposed)));
    keep(cublasLtMatrixLayoutCreate(&w, CUDA_R_16BF, static_cast<std::uint64_t>(p.k), static_cast<std::uint64_t>(p.n),
                                    p.w_stride));
    keep(cublasLtMatrixLayoutCreate(&x, CUDA_R_16BF, static_cast<std::uint64_t>(p.k), static_cast<std::uint64_t>(rows),
                                    p.x_stride));
    keep(cublasLtMatrixLayoutCreate(&z, CUDA_R_32F, static_cast<std::uint64_t>(p.n), static_cast<std::uint64_t>(rows),
                                    p.z_stride));
  }
  ~Description() {
    if (z != nullptr) cublasLtMatrixLayoutDestroy(z);
    if (x != nullptr) cublasLtMatrixLayoutDestroy(x);
    if (w != nullptr) cublasLtMatrixLayoutDestroy(w);
    if (operation != nullptr) cublasLtMatmulDescDestroy(operation);
  }
  Description(const Description&) = delete;
  Description& operator=(const Description&) = delete;

  cublasStatus_t result = CUBLAS_STATUS_SUCCESS;
  cublasLtMatmulDesc_t operation = nullptr;
  cublasLtMatrixLayout_t w = nullptr, x = nullptr, z = nullptr;

 private:
  void keep(cublasStatus_t s) noexcept {
    if (result == CUBLAS_STATUS_SUCCESS) result = s;
  }
};

/// Whether it adds each output up in one place, for one row as for many.
bool is_one_order(const Context* c, const Gemm& p, const cublasLtMatmulAlgo_t& algorithm) noexcept {
  std::int32_t splits = 0;
  std::size_t written = 0;
  const auto got = cublasLtMatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_SPLITK_NUM, &splits,
                                                        sizeof(splits), &written);
  if (got != CUBLAS_STATUS_SUCCESS || splits > 1) return false;
  const Description one(p, 1);
  cublasLtMatmulHeuristicResult_t result{};
  return one.result == CUBLAS_STATUS_SUCCESS &&
         cublasLtMatmulAlgoCheck(c->blas, one.operation, one.w, one.x, one.z, one.z, &algorithm, &result) ==
             CUBLAS_STATUS_SUCCESS &&
         result.workspaceSize == 0;
}

/// What heuristics are asked for: no workspace, no splits, rows that begin at 16 bytes.
class Preference {
 public:
  Preference() noexcept : result(cublasLtMatmulPreferenceCreate(&get)) {
    set(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, std::size_t{0});
    set(CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, std::uint32_t{CUBLASLT_REDUCTION_SCHEME_NONE});
    for (const auto matrix : {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                              CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES}) {
      set(matrix, std::uint32_t{16});
    }
  }
  ~Preference() {
    if (get != nullptr) cublasLtMatmulPreferenceDestroy(get);
  }
  Preference(const Preference&) = delete;
  Preference& operator=(const Preference&) = delete;

  cublasLtMatmulPreference_t get = nullptr;
  cublasStatus_t result;

 private:
  template <class T>
  void set(cublasLtMatmulPreferenceAttributes_t attribute, T value) noexcept {
    if (result == CUBLAS_STATUS_SUCCESS) {
      result = cublasLtMatmulPreferenceSetAttribute(get, attribute, &value, sizeof(value));
    }
  }
};

/// The first that its heuristics name for a full step, of those that add each output up in one place.
cublasStatus_t choose(const Context* c, const Gemm& p, cublasLtMatmulAlgo_t& algorithm) noexcept {
  constexpr int most = 16;
  const Description full(p, chosen_for_rows);
  const Preference preference;
  if (full.result != CUBLAS_STATUS_SUCCESS) return full.result;
  if (preference.result != CUBLAS_STATUS_SUCCESS) return preference.result;
  cublasLtMatmulHeuristicResult_t found[most] = {};
  int count = 0;
  const auto s = cublasLtMatmulAlgoGetHeuristic(c->blas, full.operation, full.w, full.x, full.z, full.z, preference.get,
                                                most, found, &count);
  if (s != CUBLAS_STATUS_SUCCESS) return s;
  for (int i = 0; i < count; ++i) {
    if (found[i].state != CUBLAS_STATUS_SUCCESS || !is_one_order(c, p, found[i].algo)) continue;
    algorithm = found[i].algo;
    return CUBLAS_STATUS_SUCCESS;
  }
  return CUBLAS_STATUS_NOT_SUPPORTED;
}

}  // namespace

Status run(Context* c, const Gemm& p) noexcept {
  if (p.rows == 0 || p.n == 0) return {};
  const OnDevice here(c->device);
  const Algorithm* chosen = nullptr;
  for (const Algorithm& a : c->algorithms) {
    if (a.n == p.n && a.k == p.k && a.z_stride == p.z_stride) chosen = &a;
  }
  if (chosen == nullptr) {
    Algorithm made{p.n, p.k, p.z_stride, {}};
    if (const auto s = choose(c, p, made.algorithm); s != CUBLAS_STATUS_SUCCESS) return status(s);
    try {
      chosen = &c->algorithms.emplace_back(made);
    } catch (...) {
      return status(cudaErrorMemoryAllocation);
    }
  }
  const Description d(p, p.rows);
  if (d.result != CUBLAS_STATUS_SUCCESS) return status(d.result);
  const float alpha = 1, beta = p.accumulate != 0 ? 1.0F : 0.0F;
  return status(cublasLtMatmul(c->blas, d.operation, &alpha, p.w, d.w, p.x, d.x, &beta, p.z, d.z, p.z, d.z,
                               &chosen->algorithm, nullptr, 0, c->stream));
}

}  // namespace finteam::cuda_v0_1
