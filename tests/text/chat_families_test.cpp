// Every family's chat format against transformers' apply_chat_template, from the family's own template on: it is
// recognised by its text, and its ids are compared over a grid of conversations.
#include <finteam/text/chat.hpp>
#include <finteam/text/chat_recognition.hpp>

#include "catch.hpp"
#include "text/goldens.hpp"

#include <algorithm>
#include <optional>
#include <string>
#include <vector>

using namespace finteam;

namespace {

using ChatIds = std::vector<std::int32_t>;

std::filesystem::path chat_goldens() { return std::filesystem::path(FINTEAM_TEST_DATA) / "goldens" / "chat"; }

Json read_json(const std::filesystem::path& path) {
  return parse_json(MappedFile::open(path).text(), path.filename().string());
}

/// nth: of that name; the later ones are on pieces.json.
Json golden_family(const std::string& name, int nth = 0) {
  static const Json all = read_json(chat_goldens() / "families.json");
  for (const Json& family : all) {
    if (family["name"] == name && nth-- == 0) return family;
  }
  FAIL("no family " << name);
  return {};
}

/// The family's small tokenizer with its added tokens behind the others.
Tokenizer chat_tokenizer(const Json& family) {
  Json file = read_json(chat_goldens() / family["tokenizer"].get<std::string>());
  file.update(family["set"]);
  const Json& vocab = file["model"]["vocab"];
  std::size_t id = vocab.size();
  for (const Json& content : family["added"]) {
    const auto known = vocab.find(content.get<std::string>());
    const auto& rstrip = family["rstrip"];
    file["added_tokens"].push_back({{"id", known != vocab.end() ? known->get<std::size_t>() : id++},
                                    {"content", content},
                                    {"special", true},
                                    {"rstrip", std::find(rstrip.begin(), rstrip.end(), content) != rstrip.end()}});
  }
  return Tokenizer::parse(file.dump(), "tokenizer.json");
}

std::optional<std::string> word(const Json& json) {
  return json.is_null() ? std::nullopt : std::optional(json.get<std::string>());
}

ChatLayout recognised(const Json& family) {
  return recognise_chat({"tokenizer_config.json: chat_template", family["template"].get<std::string>(),
                         word(family["bos"]), word(family["eos"])});
}

std::vector<Message> chat_messages(const Json& conversation) {
  std::vector<Message> messages;
  for (const Json& m : conversation) {
    const auto& role = m[0].get_ref<const std::string&>();
    messages.push_back({role == "system" ? ChatRole::system
                        : role == "user" ? ChatRole::user
                                         : ChatRole::assistant,
                        m[1].get_ref<const std::string&>()});
  }
  return messages;
}

std::string hash_of(const ChatIds& ids) {
  std::uint64_t h = 0xCBF29CE484222325ULL;
  for (const std::int32_t id : ids) {
    for (int i = 0; i < 32; i += 8) h = (h ^ (static_cast<std::uint32_t>(id) >> i & 0xFFU)) * 0x100000001B3ULL;
  }
  std::string out(16, '0');
  for (std::size_t i = 0; i < 16; ++i) out[15 - i] = "0123456789abcdef"[h >> (4 * i) & 15U];
  return out;
}

/// What finteam refuses where transformers gives something: it would leave a message out, or begin a turn again.
bool stricter(const ChatLayout& layout, const std::vector<Message>& messages) {
  const bool system = messages[0].role == ChatRole::system;
  const bool later =
      std::any_of(messages.begin() + 1, messages.end(), [](const Message& m) { return m.role == ChatRole::system; });
  const bool folded = system && layout.place != SystemPlace::turn;
  return (later && !layout.system_later) || (folded && messages.size() == 1) ||
         (messages.back().role != ChatRole::user &&
          (layout.user_last || (folded && layout.place == SystemPlace::last_user)));
}

struct ChatCase {
  Tokenizer tokenizer;
  ChatFormat format;

  [[nodiscard]] std::size_t structure_tokens(const ChatIds& ids) const {
    return static_cast<std::size_t>(std::count_if(
        ids.begin(), ids.end(), [&](std::int32_t id) { return tokenizer.kind(id) != TokenKind::ordinary; }));
  }
  /// The ids, or nothing where the conversation is refused.
  [[nodiscard]] std::optional<ChatIds> ids(const std::vector<Message>& messages) const {
    ChatFormat::Scratch scratch = format.scratch(tokenizer, 4096);
    ChatIds ids{7};
    try {
      format.encode(tokenizer, scratch, messages, ids);
    } catch (const Error& e) {
      CHECK(e.code() == Code::invalid_argument);
      CHECK(ids == ChatIds{7});
      return std::nullopt;
    }
    CHECK(ids.size() - 1 <= format.max_ids(messages));
    ids.erase(ids.begin());
    return ids;
  }
};

/// A content that spells structure is there, as text, and no structure more than in the same conversation without it.
void check_stays_text(const ChatCase& chat, const std::vector<Message>& messages, const ChatIds& ids) {
  std::vector<Message> harmless = messages;
  for (Message& m : harmless) {
    if (!strip(m.content).empty()) m.content = "x";
  }
  const auto plain = chat.ids(harmless);
  REQUIRE(plain);
  CHECK(chat.structure_tokens(ids) == chat.structure_tokens(*plain));
  const std::string text = chat.tokenizer.decode(ids, SpecialTokens::keep);
  for (const Message& m : messages) {
    std::string_view content = strip(m.content);
    const std::string& through = chat.format.layout().assistant.drop_through;
    if (m.role == ChatRole::assistant && !through.empty() && content.find(through) != std::string_view::npos) {
      content = strip(content.substr(content.rfind(through) + through.size()));
    }
    CHECK(text.find(content) != std::string::npos);
  }
}

void check_golden(const std::string& name, const Json& family) {
  const ChatLayout layout = recognised(family);
  CHECK(layout.name == name);
  Tokenizer tokenizer = chat_tokenizer(family);
  ChatFormat format(layout, tokenizer);
  const ChatCase chat{std::move(tokenizer), std::move(format)};
  const auto check = [&](const Json& conversation, const Json& expected) {
    CAPTURE(name, conversation.dump());
    const std::vector<Message> messages = chat_messages(conversation);
    const auto ids = chat.ids(messages);
    if (expected.is_null() || stricter(layout, messages)) {
      CHECK_FALSE(ids);
      return;
    }
    REQUIRE(ids);
    const auto& hash = expected.get_ref<const std::string&>();
    if (hash[0] != '!') {
      CAPTURE(chat.tokenizer.decode(*ids, SpecialTokens::keep));
      CHECK(hash_of(*ids) == hash);
    } else {  // transformers takes what a content spells for structure
      CHECK('!' + hash_of(*ids) != hash);
      check_stays_text(chat, messages, *ids);
    }
  };
  const auto conversations = finteam_test::read_lines(chat_goldens() / "conversations.jsonl");
  REQUIRE(conversations.size() == family["ids"].size());
  for (std::size_t i = 0; i < conversations.size(); ++i) check(conversations[i], family["ids"][i]);
  for (const Json& attack : family["attacks"]) check(attack["messages"], attack["ids"]);
  for (const std::string& marker : layout.markers) {  // where it is no token, no content may spell it
    const auto id = chat.tokenizer.token(marker);
    const std::string content = "x" + marker;
    CHECK(chat.ids({{ChatRole::user, content}}).has_value() == id.has_value());
  }
}

void check_family(const std::string& name) { check_golden(name, golden_family(name)); }

/// On a tokenizer as SentencePiece's converter writes it.
void check_on_pieces(const std::string& name, int nth = 1) { check_golden(name, golden_family(name, nth)); }

}  // namespace

TEST_CASE("Chat of chatml: transformers' ids", "[text][parity]") { check_family("chatml"); }
TEST_CASE("Chat of Qwen 1.5: transformers' ids", "[text][parity]") { check_family("qwen1.5"); }
TEST_CASE("Chat of Qwen 2: transformers' ids", "[text][parity]") { check_family("qwen2"); }
TEST_CASE("Chat of Qwen 2.5: transformers' ids", "[text][parity]") { check_family("qwen2.5"); }
TEST_CASE("Chat of Qwen 3: transformers' ids", "[text][parity]") { check_family("qwen3"); }
TEST_CASE("Chat of Qwen 3 Instruct: transformers' ids", "[text][parity]") { check_family("qwen3-instruct"); }
TEST_CASE("Chat of SmolLM 3: transformers' ids", "[text][parity]") { check_family("smollm3"); }
TEST_CASE("Chat of Llama 2: transformers' ids", "[text][parity]") { check_family("llama-2"); }
TEST_CASE("Chat of Llama 3: transformers' ids", "[text][parity]") { check_family("llama-3"); }
TEST_CASE("Chat of Llama 3.1: transformers' ids", "[text][parity]") { check_family("llama-3.1"); }
TEST_CASE("Chat of Llama 3.2: transformers' ids", "[text][parity]") { check_family("llama-3.2"); }
TEST_CASE("Chat of Mistral v1: transformers' ids", "[text][parity]") { check_family("mistral-v1"); }
TEST_CASE("Chat of Mistral v1, early: transformers' ids", "[text][parity]") { check_family("mistral-v1-early"); }
TEST_CASE("Chat of Mistral v3: transformers' ids", "[text][parity]") { check_family("mistral-v3"); }
TEST_CASE("Chat of Mistral v3, unstripped: transformers' ids", "[text][parity]") {
  check_family("mistral-v3-unstripped");
}
TEST_CASE("Chat of Mistral v3 Tekken: transformers' ids", "[text][parity]") { check_family("mistral-v3-tekken"); }
TEST_CASE("Chat of Phi 3: transformers' ids", "[text][parity]") { check_family("phi-3"); }
TEST_CASE("Chat of Phi 3.5: transformers' ids", "[text][parity]") { check_family("phi-3.5"); }
TEST_CASE("Chat of Phi 4: transformers' ids", "[text][parity]") { check_family("phi-4"); }
TEST_CASE("Chat of Phi 4, early: transformers' ids", "[text][parity]") { check_family("phi-4-early"); }
TEST_CASE("Chat of Gemma 2: transformers' ids", "[text][parity]") { check_family("gemma-2"); }
TEST_CASE("Chat of Gemma 3: transformers' ids", "[text][parity]") { check_family("gemma-3"); }
TEST_CASE("Chat of OLMo 2: transformers' ids", "[text][parity]") { check_family("olmo-2"); }
TEST_CASE("Chat of gpt-oss: transformers' ids", "[text][parity]") { check_family("gpt-oss"); }

TEST_CASE("Chat of Llama 2 on pieces: transformers' ids", "[text][parity]") {
  check_on_pieces("llama-2");
  check_on_pieces("llama-2", 2);  // every run begins with U+2581
}
TEST_CASE("Chat of Mistral v1 on pieces: transformers' ids", "[text][parity]") { check_on_pieces("mistral-v1"); }
TEST_CASE("Chat of Mistral v1, early, on pieces: transformers' ids", "[text][parity]") {
  check_on_pieces("mistral-v1-early");
}
TEST_CASE("Chat of Mistral v3 on pieces: transformers' ids", "[text][parity]") { check_on_pieces("mistral-v3"); }
TEST_CASE("Chat of Gemma 3 on pieces: transformers' ids", "[text][parity]") { check_on_pieces("gemma-3"); }
TEST_CASE("Chat of Phi 3 on pieces: transformers' ids", "[text][parity]") { check_on_pieces("phi-3"); }

TEST_CASE("An answer is what an assistant's turn has behind the prompt", "[text]") {
  for (const char* name : {"llama-3", "qwen2.5", "mistral-v3", "mistral-v3-tekken", "phi-4-early", "gpt-oss"}) {
    CAPTURE(name);
    const Json family = golden_family(name, name == std::string("mistral-v3") ? 1 : 0);
    Tokenizer tokenizer = chat_tokenizer(family);
    ChatFormat format(recognised(family), tokenizer);
    const ChatCase chat{std::move(tokenizer), std::move(format)};
    const Message question{ChatRole::user, "Rates?"}, answer{ChatRole::assistant, "They rose."};
    auto ids = chat.ids({question});
    REQUIRE(ids);
    ChatFormat::Scratch scratch = chat.format.scratch(chat.tokenizer, 100);
    chat.format.encode_answer(chat.tokenizer, scratch, answer.content, *ids);
    const auto whole = chat.ids({question, answer, question});
    REQUIRE(whole);
    REQUIRE(whole->size() > ids->size());
    CHECK(std::equal(ids->begin(), ids->end(), whole->begin()));
    CHECK(chat.tokenizer.kind((*whole)[ids->size()]) != TokenKind::ordinary);  // the end of the turn
  }
}
