// A merged team for a test: the golden team's three roles as the experts of one checkpoint, behind random routers.
#pragma once

#include "expert/merged_folder.hpp"
#include "team/folder.hpp"

namespace test {

inline std::vector<fs::path> golden_roles() {
  return {golden_team() / "macro", golden_team() / "micro", golden_team() / "quant"};
}

/// The same roles behind one router for each feed-forward layer, or for linear layers in these blocks (mergoo).
inline Merged merged_roles(bool linears = false, const std::vector<finteam::index_t>& blocks = {0, 1}) {
  if (!linears) return Merged(golden_roles(), 2);
  return Merged::of_linears(golden_roles(), 2,
                            {"self_attn.q_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"},
                            blocks);
}

/// `change` gets the team.json before it is written.
class MergedTeam {
 public:
  template <class Change>
  MergedTeam(const Merged& merged, Change&& change) {
    fs::create_directory(path() / "merged");
    merged.write(path() / "merged");
    fs::create_symlink(golden_team() / "tokenizer.json", path() / "tokenizer.json");
    finteam::Json json =
        finteam::parse_json(finteam::MappedFile::open(golden_team() / "team.json").text(), "team.json");
    json["roles"] = finteam::Json::parse(R"([{"name": "macro"}, {"name": "micro"}, {"name": "quant"}])");
    json["merged"] = "merged";
    for (const char* key : {"gate", "mix_in", "base"}) json.erase(key);
    change(json);
    write(path() / "team.json", json.dump());
  }
  explicit MergedTeam(const Merged& merged = merged_roles()) : MergedTeam(merged, [](finteam::Json&) {}) {}

  [[nodiscard]] const fs::path& path() const noexcept { return folder_.path(); }

 private:
  TemporaryFolder folder_;
};

}  // namespace test
