// The whole way, from text to answer, against PyTorch: chat, gate, labels, mixtures, greedy text.

#include "catch.hpp"
#include "team/answers.hpp"
#include "team/folder.hpp"
#include "tolerance.hpp"

#include <finteam/backend/reference.hpp>
#include <finteam/team/session.hpp>

#include <string>
#include <vector>

using namespace finteam;
using test::quiet;

namespace {

const Json& goldens() {
  static const Json json = parse_json(MappedFile::open(test::golden_team() / "golden.json").text(), "golden.json");
  return json;
}

void check_close(const std::vector<double>& found, const Json& expected) {
  REQUIRE(found.size() == expected.size());
  for (std::size_t i = 0; i < found.size(); ++i) {
    CAPTURE(i, found[i], expected[i].get<double>());
    CHECK(tolerance::whole_model.holds(found[i], expected[i].get<double>()));
  }
}

template <class B>
void check_labels(const Team<B>& team) {
  Session<B> desk(team);
  for (const Json& g : goldens().at("prompts")) {
    if (g.at("task").is_null()) continue;
    CAPTURE(g.at("text").get<std::string>());
    const View& view =
        desk.classify(g.at("task").get<std::string>(), g.at("text").get<std::string>(), {.wake = Wake::all});
    CHECK(view.prompt_tokens == static_cast<index_t>(g.at("ids").size()));
    CHECK(view.label == g.at("label").get<std::string>());
    check_close(view.probabilities, g.at("distribution"));
    check_close({view.entropy, view.disagreement, view.probability},
                Json::array({g.at("entropy_bits"), g.at("disagreement_bits"), g.at("probability")}));
    for (std::size_t k = 0; k < view.roles.size(); ++k) {
      const RoleView& role = view.roles[k];
      CAPTURE(role.name);
      check_close({role.weight}, Json::array({g.at("gate").at("weights")[k]}));
      check_close(role.scores, g.at("roles").at(role.name).at("scores"));
      check_close(role.probabilities, g.at("roles").at(role.name).at("distribution"));
    }
  }
}

template <class B>
void check_greedy(const Team<B>& team, const std::string& mix_in) {
  Session<B> desk(team);
  for (const Json& g : goldens().at("prompts")) {
    std::string content;
    if (g.at("task").is_null()) {
      content = g.at("text").get<std::string>();
    } else {
      detail::fill(team.task(g.at("task").get<std::string>()), g.at("text").get<std::string>(), content);
    }
    CAPTURE(content);
    const auto expected = g.at("greedy").at(mix_in).get<std::vector<std::int32_t>>();
    const Generation& text = desk.generate(content, quiet, {.max_tokens = static_cast<index_t>(expected.size())});
    CHECK(text.ids == expected);
    CHECK(text.prompt_tokens == static_cast<index_t>(g.at("ids").size()));
  }
}

}  // namespace

TEST_CASE("classify gives transformers' label scores, gate and mixture on the CPU backend", "[parity][law1]") {
  check_labels(open_team<Cpu>(test::golden_team()));
}

TEST_CASE("classify gives transformers' label scores, gate and mixture on the reference backend", "[parity][law1]") {
  check_labels(open_team<Reference>(test::golden_team()));
}

TEST_CASE("greedy text of a mixture in probabilities is transformers'", "[parity][law1]") {
  check_greedy(open_team<Cpu>(test::golden_team()), "probabilities");
  check_greedy(open_team<Reference>(test::golden_team()), "probabilities");
}

TEST_CASE("greedy text of a mixture in logits is transformers'", "[parity][law1]") {
  const test::TeamFolder folder([](Json& team) { team["mix_in"] = "logits"; });
  check_greedy(open_team<Cpu>(folder.path()), "logits");
}

TEST_CASE("the log-probability of a text under the team is what generate mixes", "[team][law1]") {
  for (const char* mix_in : {"probabilities", "logits"}) {
    CAPTURE(mix_in);
    const test::TeamFolder folder([&](Json& team) {
      team["mix_in"] = mix_in;
      team["chat"] = "none";
    });
    const auto team = open_team(folder.path());
    Session<Cpu> desk(team);
    const std::string text = "Profit rose 12% in the third quarter";
    const Score& score = desk.score(text);
    CHECK(score.tokens > 5);
    double by_hand = 0;
    std::vector<std::int32_t> ids(team.tokenizer().prefix().begin(), team.tokenizer().prefix().end());
    for (const auto id : team.tokenizer().encode(text)) ids.push_back(id);
    std::vector<double> weight;
    for (const auto& role : score.roles) weight.push_back(role.weight);
    Cpu b;
    std::vector<std::vector<float>> rows;
    for (std::size_t k = 0; k < team.roles().size(); ++k) {
      const Decoder<Cpu>& decoder = team.decoder(k);
      const Config& c = decoder.config();
      KvCache<Cpu> cache(
          b, {.layers = c.layers, .kv_heads = c.g, .head_dim = c.e, .sequences = 1, .tokens = 64, .pages = 2});
      StepScratch<Cpu> scratch(b, c, 64);
      const index_t t = static_cast<index_t>(ids.size());
      Tensor<float, 2> hidden({t, c.d}), logits({t, c.v});
      std::vector<Row> step;
      const auto s = cache.open();
      cache.extend(s, t);
      for (index_t i = 0; i < t; ++i)
        step.push_back({ids[static_cast<std::size_t>(i)], static_cast<std::int32_t>(i), s});
      REQUIRE(!decoder.forward(b, cache, step, scratch, hidden.view()));
      decoder.logits(b, hidden.view(), scratch, logits.view());
      rows.emplace_back(logits.data(), logits.data() + logits.size());
    }
    const std::size_t v = static_cast<std::size_t>(team.vocab_size());
    for (std::size_t i = 0; i + 1 < ids.size(); ++i) {
      std::vector<float> x, y(v);
      for (const auto& r : rows)
        x.insert(x.end(), r.begin() + static_cast<std::ptrdiff_t>(i * v),
                 r.begin() + static_cast<std::ptrdiff_t>((i + 1) * v));
      mix_next_token(team.mix_in(), weight, {x.data(), {static_cast<index_t>(rows.size()), team.vocab_size()}}, y);
      by_hand += static_cast<double>(y[static_cast<std::size_t>(ids[i + 1])]);
    }
    CHECK(score.log_probability == by_hand);
  }
}
