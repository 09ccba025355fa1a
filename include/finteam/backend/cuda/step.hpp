// A step of a GPU, recorded: commands in their order, and the bytes that the host tells them. A step that was seen
// before runs as one graph, with new bytes; any other runs a command at a time. So a step's shape is whatever its
// commands are: there is no key to get wrong. Not here: what the commands are for (cuda.hpp).
#pragma once

#include <finteam/backend/cuda/device_memory.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <utility>
#include <variant>
#include <vector>

namespace finteam::inline FINTEAM_ABI::detail {

/// What a kernel can be told.
using CudaCommand =
    std::variant<cuda::Fill, cuda::Copy, cuda::Embed, cuda::AddBias, cuda::SoftCap, cuda::Norm, cuda::Prepare,
                 cuda::Multiply, cuda::MultiplyEach, cuda::Finish, cuda::Widen, cuda::Gemm, cuda::Route,
                 cuda::MultiplyRouted, cuda::AddRouted, cuda::Gated, cuda::Angles, cuda::Rope, cuda::CacheWrite,
                 cuda::TurnAndWrite, cuda::CacheCopy, cuda::Attend, cuda::AttendRuns, cuda::NextToken, cuda::LogP>;

/// One thread's; moves only.
class CudaStep {
 public:
  CudaStep(std::shared_ptr<CudaContext> context, std::size_t staging_bytes)
      : context_(std::move(context)), staging_bytes_(staging_bytes), device_(context_, staging_bytes) {
    host_ = pinned();
    results_ = pinned();
    commands_.reserve(1024);
    taken_.reserve(1024);
  }

  /// From now on commands wait for the step's end; before, they run at once.
  void hold() noexcept { held_ = true; }

  void add(const CudaCommand& command) {
    commands_.push_back(command);
    if (!held_) flush();
  }

  /// The command that was added last, if it has not been given to the stream.
  [[nodiscard]] CudaCommand* last() noexcept { return commands_.empty() ? nullptr : &commands_.back(); }

  /// Numbers for the step's commands, as they are now: their address in the device's memory.
  template <class T>
  [[nodiscard]] const T* tell(std::span<const T> x) {
    return reinterpret_cast<const T*>(tell_bytes(x.data(), x.size_bytes()));
  }

  /// Addresses that tell() gave are good for as long as this number stays.
  [[nodiscard]] std::uint64_t epoch() const noexcept { return epoch_; }

  /// Device memory for one command after the other, at least so many bytes.
  [[nodiscard]] void* scratch(std::size_t bytes) {
    if (bytes > scratch_.size()) {
      run_all();
      check(cuda::wait(context_->get()), "a step to end");
      graphs_.clear();  // they know the old address
      scratch_ = DeviceBuffer(context_, (bytes + scratch_steps - 1) / scratch_steps * scratch_steps);
    }
    return scratch_.data();
  }

  /// Gives everything to the stream. again: as a graph, if a step of the same commands was given before.
  void flush(bool again = false) {
    if (commands_.empty()) return;
    const auto known =
        !again || given_ != 0 ? graphs_.end() : std::find_if(graphs_.begin(), graphs_.end(), [&](auto& g) {
          return g.told == told_bytes_ && g.commands == commands_;
        });
    if (known != graphs_.end() && (known->graph != nullptr || capture(*known))) {
      const Emptied commands(commands_);
      check(cuda::launch_graph(context_->get(), known->graph.get()), "a graph to run");
      given_ = told_bytes_;
      std::rotate(graphs_.begin(), known, known + 1);
      return;
    }
    if (again && given_ == 0 && known == graphs_.end()) remember();
    run_all();
  }

  /// to = the bytes at `from`, in the stream's order; to may be read after finish().
  void take(void* to, const void* from, std::size_t bytes) {
    const bool fits = taken_bytes_ + bytes <= staging_bytes_;  // else by way of the driver's own pinned memory
    void* const by_way = fits ? static_cast<void*>(results_.get() + taken_bytes_) : to;
    check(cuda::copy_out(context_->get(), by_way, from, bytes), "results to be copied");
    if (!fits) return;
    taken_.push_back({to, taken_bytes_, bytes});
    taken_bytes_ += bytes;
  }
  /// Until everything that was given has run; the next step starts anew.
  void finish() {
    const cuda::Status status = cuda::wait(context_->get());
    for (const Taken& t : taken_) {
      if (status.ok()) std::memcpy(t.to, results_.get() + t.at, t.bytes);
    }
    forget();
    check(status, "a step to run");
  }

  /// Everything given so far, but that since the last call, has run.
  void pace() {
    flush();
    check(cuda::mark(context_->get(), event_.get()), "an event");
    std::swap(event_, before_);
    if (event_.get() != nullptr) check(cuda::await(context_->get(), event_.get()), "a step to run");
  }

  [[nodiscard]] const std::shared_ptr<CudaContext>& context() const noexcept { return context_; }
  /// Graphs that steps have become.
  [[nodiscard]] std::size_t graphs() const noexcept {
    return static_cast<std::size_t>(
        std::count_if(graphs_.begin(), graphs_.end(), [](const Graph& g) { return g.graph != nullptr; }));
  }

 private:
  static constexpr std::size_t most_graphs = 16, alignment = 16, scratch_steps = std::size_t{1} << 20;

  struct Release {
    std::shared_ptr<CudaContext> context;
    void operator()(std::byte* p) const noexcept { cuda::release_pinned(context->get(), p); }
  };
  using Pinned = std::unique_ptr<std::byte, Release>;
  [[nodiscard]] Pinned pinned() const {
    void* p = nullptr;
    check(cuda::allocate_pinned(context_->get(), staging_bytes_, p), "pinned memory");
    return {static_cast<std::byte*>(p), Release{context_}};
  }
  struct Taken {
    void* to;
    std::size_t at, bytes;
  };
  struct ReleaseGraph {
    std::shared_ptr<CudaContext> context;
    void operator()(void* p) const noexcept { cuda::release_graph(context->get(), p); }
  };
  /// An event of the stream, made when it is first marked.
  class Event {
   public:
    Event() = default;
    explicit Event(std::shared_ptr<CudaContext> context) noexcept : context_(std::move(context)) {}
    Event(Event&& other) noexcept : context_(std::move(other.context_)), p_(std::exchange(other.p_, nullptr)) {}
    Event& operator=(Event&& other) noexcept {
      std::swap(context_, other.context_);
      std::swap(p_, other.p_);
      return *this;
    }
    ~Event() {
      if (p_ != nullptr) cuda::release_event(context_->get(), p_);
    }
    [[nodiscard]] void*& get() noexcept { return p_; }

   private:
    std::shared_ptr<CudaContext> context_;
    void* p_ = nullptr;
  };
  /// Commands that are gone when this is, however it ends.
  struct Emptied {
    explicit Emptied(std::vector<CudaCommand>& which) noexcept : commands(which) {}
    ~Emptied() { commands.clear(); }
    Emptied(const Emptied&) = delete;
    Emptied& operator=(const Emptied&) = delete;
    std::vector<CudaCommand>& commands;
  };
  struct Graph {
    std::vector<CudaCommand> commands;
    std::size_t told = 0;
    std::unique_ptr<void, ReleaseGraph> graph;
  };
  [[nodiscard]] const std::byte* tell_bytes(const void* from, std::size_t bytes) {
    auto* const device = static_cast<std::byte*>(device_.data());
    if (bytes == 0) return device;
    if (bytes > staging_bytes_) {
      throw Error(Code::limit_exceeded, "CUDA", "at most " + std::to_string(staging_bytes_) + " staging bytes",
                  std::to_string(bytes));
    }
    if (told_bytes_ + bytes > staging_bytes_) {
      run_all();
      check(cuda::wait(context_->get()), "a step to run");
      told_bytes_ = given_ = 0;
      wrapped_ = true;
      ++epoch_;
    }
    const std::size_t at = told_bytes_;
    std::memcpy(host_.get() + at, from, bytes);
    told_bytes_ = at + (bytes + alignment - 1) / alignment * alignment;
    told_bytes_ = std::min(told_bytes_, staging_bytes_);
    return device + at;
  }

  void give_told() {
    if (told_bytes_ == given_) return;
    check(cuda::copy_in(context_->get(), static_cast<std::byte*>(device_.data()) + given_, host_.get() + given_,
                        told_bytes_ - given_),
          "a step's numbers to be copied");
    given_ = told_bytes_;
  }
  void run_all() {
    const Emptied commands(commands_);
    give_told();
    run_each();
  }
  void run_each() {
    for (const CudaCommand& command : commands_) {
      check(std::visit([&](const auto& c) { return cuda::run(context_->get(), c); }, command), "a kernel to start");
    }
  }
  void remember() {
    if (wrapped_ || !captures_) return;
    if (graphs_.size() < most_graphs) graphs_.push_back({{}, 0, {nullptr, ReleaseGraph{context_}}});
    std::rotate(graphs_.begin(), graphs_.end() - 1, graphs_.end());
    Graph& g = graphs_.front();
    g.graph.reset();
    g.commands.assign(commands_.begin(), commands_.end());
    g.told = told_bytes_;
  }
  /// Whether it became a graph: there may be no memory for it, or the caller's stream may not be one for graphs. Then
  /// none is tried again.
  [[nodiscard]] bool capture(Graph& g) {
    void* graph = nullptr;
    captures_ = cuda::begin_graph(context_->get()).ok();
    if (!captures_) return false;
    try {
      give_told();
      run_each();
    } catch (...) {  // run_all() will meet it again, if it is one that stays
      captures_ = false;
    }
    given_ = 0;  // nothing has run yet
    captures_ = cuda::end_graph(context_->get(), graph).ok() && captures_;
    g.graph.reset(graph);
    if (!captures_) g.graph.reset();
    return captures_;
  }
  void forget() noexcept {
    commands_.clear();
    taken_.clear();
    taken_bytes_ = 0;
    told_bytes_ = given_ = 0;
    held_ = wrapped_ = false;
    ++epoch_;
  }

  std::shared_ptr<CudaContext> context_;
  std::size_t staging_bytes_;
  DeviceBuffer device_;  // the same bytes as host_, once given
  Pinned host_{nullptr, {}}, results_{nullptr, {}};
  std::vector<Taken> taken_;
  std::size_t taken_bytes_ = 0;
  std::vector<CudaCommand> commands_;  // not given yet
  std::size_t told_bytes_ = 0, given_ = 0;
  std::uint64_t epoch_ = 1;
  bool held_ = false, wrapped_ = false, captures_ = true;
  DeviceBuffer scratch_;
  std::vector<Graph> graphs_;  // the last used first
  Event event_{context_}, before_{context_};
};

}  // namespace finteam::inline FINTEAM_ABI::detail
