// How a checkpoint's or a team's weights are opened.
// Not here: what the options make of each tensor (source_weights.hpp).
#pragma once

#include <finteam/core/format.hpp>
#include <finteam/core/huge_pages.hpp>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory_resource>
#include <string>
#include <vector>

namespace finteam::inline FINTEAM_ABI {

/// Called while weights are loaded: bytes read so far, of how many. Must not throw.
using Progress = std::function<void(std::uint64_t done, std::uint64_t total)>;

/// Other weights for the matrices of which a tensor's name holds `part`: {"lm_head", Weights::int8}. A tied head goes
/// by both names.
struct WeightChoice {
  std::string part;
  Weights weights = Weights::stored;
};

/// How packed weights are known to be those of a source, and a low-bit difference to be one to its base (to the base's
/// contents too where weights are not packed: they are read anyway).
enum class Verify : std::uint8_t {
  times,     ///< by the headers, sizes and times of the source's files
  contents,  ///< by the headers, sizes and all bytes of the source's files, which are read
};

/// How a checkpoint's or a team's weights are opened.
struct OpenOptions {
  /// What every matrix is kept as, unless a choice says otherwise.
  Weights weights = Weights::stored;
  /// The first that fits a tensor's name counts. One for q_proj, k_proj and v_proj of a layer, and one for gate_proj
  /// and up_proj: they are read by one product. A choice that fits no matrix is refused.
  std::vector<WeightChoice> choices{};
  /// Called on the opening thread while weights are read: bytes so far, of all bytes. Must not throw.
  Progress progress{};
  /// Where weights live that are packed on opening; outlives what is opened.
  std::pmr::memory_resource* memory = huge_pages();
  /// A folder for packed weights, made if it is not there: the first opening writes a file for each role, later ones
  /// map it and pack nothing. A file that is damaged, unfinished or foreign is replaced. Nothing there is ever removed:
  /// a file that is not in use may be, and an *.unfinished one of a process that was killed. Empty: no such files.
  /// Backends that do not pack into panels ignore it.
  std::filesystem::path packed{};
  /// How a file in that folder is known to be the source's.
  Verify verify = Verify::times;
};

namespace detail {

/// Tells how far loading is: never less than before.
class LoadProgress {
 public:
  LoadProgress(const Progress& tell, std::uint64_t total) : tell_(tell), total_(total) {}
  void add(std::uint64_t bytes) { reach(done_ += bytes); }
  /// Begins again, quietly until it gets further than before.
  void restart() noexcept { done_ = 0; }
  void finish() { reach(total_); }

 private:
  void reach(std::uint64_t done) {
    if (done <= told_) return;
    told_ = done;
    if (tell_) tell_(done, total_);
  }

  const Progress& tell_;
  std::uint64_t total_, done_ = 0, told_ = 0;
};

}  // namespace detail
}  // namespace finteam::inline FINTEAM_ABI
