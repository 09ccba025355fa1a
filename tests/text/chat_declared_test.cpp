// Formats that team.json declares, templates that are and are not a family's, and what a format refuses.
#include <finteam/text/chat.hpp>
#include <finteam/text/chat_recognition.hpp>

#include "catch.hpp"
#include "refusals.hpp"
#include "text/goldens.hpp"

#include <unistd.h>

#include <fstream>
#include <string>
#include <vector>

using namespace finteam;
using finteam_test::small;
using test::check_refused;

namespace {

using TurnIds = std::vector<std::int32_t>;

ChatLayout declared(const std::string& json) {
  const Json parsed = parse_json(json, "team.json");
  return chat_layout(JsonView(parsed, "team.json: chat"));
}

TurnIds written(const ChatLayout& layout, const std::vector<Message>& messages, std::size_t max_bytes = 1000) {
  const ChatFormat format(layout, small());
  ChatFormat::Scratch scratch = format.scratch(small(), max_bytes);
  TurnIds ids;
  format.encode(small(), scratch, messages, ids);
  return ids;
}

std::string shown(const ChatLayout& layout, const std::vector<Message>& messages) {
  return small().decode(written(layout, messages), SpecialTokens::keep);
}

const std::vector<Message> talk{{ChatRole::system, " Be brief.\n"},
                                {ChatRole::user, "Rates?"},
                                {ChatRole::assistant, "Up."},
                                {ChatRole::user, " Why? "}};

/// Two tokens that the small tokenizer has are enough structure for a declared format.
constexpr const char* desk_format = R"({"tokens": ["<|begin_of_text|>", "<|eot_id|>"], "start": "<|begin_of_text|>",
  "system": {"before": "Rules: ", "after": "\n", "strip": "ends"},
  "user": {"before": "Q: ", "after": "<|eot_id|>"}, "assistant": {"before": "A: ", "after": "<|eot_id|>"},
  "open": "A:", "end": "<|eot_id|>"})";

ChatLayout of_template(std::string text, std::optional<std::string> bos = {}) {
  return recognise_chat({"tokenizer_config.json: chat_template", std::move(text), std::move(bos), {}});
}

constexpr const char* turn_of_llama3 =
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' "
    "+ "
    "message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% "
    "endif %}"
    "{{ content }}{% endfor %}";
constexpr const char* open_of_llama3 =
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}";

/// A new folder with files in it, gone with the object.
class ChatFolder {
 public:
  ChatFolder() : path_(std::filesystem::temp_directory_path() / ("finteam-chat-" + std::to_string(getpid()))) {
    std::filesystem::create_directories(path_);
  }
  ChatFolder(const ChatFolder&) = delete;
  ChatFolder& operator=(const ChatFolder&) = delete;
  ~ChatFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  void write(const char* name, const std::string& text) const { std::ofstream(path_ / name, std::ios::binary) << text; }
  [[nodiscard]] const std::filesystem::path& path() const noexcept { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace

TEST_CASE("A declared format is written as it says", "[text]") {
  const ChatLayout layout = declared(desk_format);
  CHECK(layout.name == "declared");
  CHECK(shown(layout, talk) ==
        "<|begin_of_text|>Rules: Be brief.\nQ: Rates?<|eot_id|>A: Up.<|eot_id|>Q:  Why? "
        "<|eot_id|>A:");
  CHECK(ChatFormat(layout, small()).end_id() == small().token("<|eot_id|>"));
  // What stands beside a content is tokenised with it.
  const TurnIds run = small().encode("Q: \n\nx"), ids = written(layout, {{ChatRole::user, "\n\nx"}});
  REQUIRE(ids.size() > run.size() + 2);
  CHECK(TurnIds(ids.begin() + 1, ids.begin() + 1 + static_cast<std::ptrdiff_t>(run.size())) == run);
}

TEST_CASE("A format that is like a family's has its own keys in the family's place", "[text]") {
  CHECK(written(declared("\"llama-3\""), talk) == written(chat_layout("llama-3", ""), talk));
  const ChatLayout dated = declared(R"({"like": "llama-3.1", "date": "02 Jan 2026"})");
  CHECK(dated.name == "like llama-3.1");
  CHECK(shown(dated, {{ChatRole::user, "x"}}) ==
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday "
        "Date: "
        "02 Jan 2026\n\n<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nx<|eot_id|><|start_header_id|>assistant"
        "<|end_header_id|>\n\n");
  const ChatLayout mute = declared(R"({"like": "llama-3", "system": null, "open": "<|start_header_id|>"})");
  CHECK(shown(mute, {{ChatRole::user, "x"}}).ends_with("x<|eot_id|><|start_header_id|>"));
  check_refused([&] { written(mute, talk); }, Code::invalid_argument, "chat: message 0: expected no system message");
}

TEST_CASE("A declared format's texts have a limit, and its tokens must be the tokenizer's", "[law5]") {
  const std::string long_text(70'000, 'x');
  check_refused([&] { declared(R"({"like": "llama-3", "start": ")" + long_text + "\"}"); }, Code::limit_exceeded,
                "65536 bytes of text");
  check_refused([&] { written(declared(R"({"like": "llama-3", "tokens": ["<|nobody|>"]})"), talk); }, Code::mismatch,
                "added_tokens: expected <|nobody|> (chat format like llama-3), found none");
  check_refused([&] { written(declared(R"({"like": "llama-3", "end": "the"})"), talk); }, Code::mismatch,
                "expected the");
}

TEST_CASE("Structure that is plain text cannot come from a content, alone or with the text beside it", "[law5]") {
  const ChatLayout layout = declared(R"({"like": "llama-2", "tokens": [], "markers": ["[INST]", "[/INST]", "<<SYS>>",
    "<</SYS>>"], "end": null, "user": {"before": "[INST] [", "after": "/INST] [/INST]", "strip": "together"}})");
  CHECK(shown(layout, {{ChatRole::user, "x [INST ] ok"}}) == "[INST] [x [INST ] ok/INST] [/INST]");
  for (const char* content : {"a [INST] b", "<</SYS>>", "[/INST]", "INST] begins", "ends ["}) {
    CAPTURE(content);
    check_refused(
        [&] {
          written(layout, {{ChatRole::user, content}});
        },
        Code::invalid_argument, "content without [INST], [/INST], <<SYS>>, <</SYS>>, which are structure here");
  }
  check_refused(
      [&] {
        written(layout, {{ChatRole::system, "<<SYS>>"}, {ChatRole::user, "x"}});
      },
      Code::invalid_argument, "structure here");
  CHECK_NOTHROW(written(layout, {{ChatRole::system, "[SYS]"}, {ChatRole::user, "x"}}));
}

TEST_CASE("A conversation in an order that a format does not have is refused by its message", "[text][law5]") {
  const Message s{ChatRole::system, "s"}, u{ChatRole::user, "u"}, a{ChatRole::assistant, "a"};
  const auto format = [](const std::string& keys) {
    return declared(
        R"({"tokens": ["<|eot_id|>"], "user": {"after": "<|eot_id|>"}, "assistant": {"after": "<|eot_id|>"})" + keys +
        "}");
  };
  const auto check = [&](const ChatLayout& layout, const std::vector<Message>& messages, const char* says) {
    check_refused([&] { written(layout, messages); }, Code::invalid_argument, says);
  };
  const std::string alternate = R"(, "alternate": true)", last = R"(, "user_last": true)";
  check(format(""), {}, "chat: expected at least one message, found none");
  check(format(""), {s, u}, "chat: message 0: expected no system message (chat format declared), found a system's");
  check(format(R"(, "system": {})"), {u, s}, "chat: message 1: expected a system message at the start only");
  CHECK_NOTHROW(written(format(R"(, "system": {}, "system_later": {})"), {s, u, s}));
  check(format(alternate), {u, u}, "chat: message 1: expected user and assistant in turn");
  check(format(alternate), {a}, "chat: message 0: expected user and assistant in turn");
  CHECK_NOTHROW(written(format(alternate), {u, a, u, a}));
  check(format(last), {u, a}, "chat: message 1: expected a user's message at the end");
  const std::string first = R"(, "system": {"in": "first_user"})", to_last = R"(, "system": {"in": "last_user"})";
  check(format(first), {s}, "chat: message 0: expected a user's message after the system's");
  check(format(first), {s, a, u}, "chat: message 1: expected a user's message after the system's");
  check(format(to_last), {s, u, a}, "chat: message 2: expected a user's message at the end");
  CHECK(shown(format(first), {s, u, u}) == "su<|eot_id|>u<|eot_id|>");
  CHECK(shown(format(to_last), {s, u, u}) == "u<|eot_id|>su<|eot_id|>");
}

TEST_CASE("A content that the family's template would take for a command is refused", "[text][law5]") {
  const ChatLayout layout = declared(R"({"tokens": ["<|eot_id|>"], "user": {"after": "<|eot_id|>"}, "assistant": {},
    "system": {"never": ["/think"], "empty_is_none": true, "strip": "end", "none": "nothing"}})");
  CHECK(shown(layout, {{ChatRole::system, " \n"}, {ChatRole::user, "/think"}}) == "nothing/think<|eot_id|>");
  check_refused(
      [&] {
        written(layout, {{ChatRole::system, "no /thinking"}, {ChatRole::user, "x"}});
      },
      Code::invalid_argument, "message: expected content without the template's commands, found \"/think\"");
}

TEST_CASE("Contents are as long as the scratch is for, and so is what stands between two tokens", "[text][law4]") {
  const std::string ten(10, 'x'), eleven(11, 'x');
  const ChatLayout layout = declared(R"({"user": {"before": "Q:"}, "assistant": {"before": "A:"}})");
  CHECK_NOTHROW(written(layout, {{ChatRole::user, ten}}, 10));
  check_refused(
      [&] {
        written(layout, {{ChatRole::user, eleven}}, 10);
      },
      Code::limit_exceeded, "text: expected at most 10 bytes");
  check_refused(
      [&] {
        written(layout, {{ChatRole::user, ten}, {ChatRole::assistant, ten}}, 10);
      },
      Code::limit_exceeded, "bytes between two structure tokens");
}

TEST_CASE("Tokens that take white space along take it out of the runs beside them", "[text]") {
  ChatFormat::Scratch scratch = ChatFormat::none(small()).scratch(small(), 100);
  const std::int32_t eot = *small().token("<|eot_id|>");
  const std::vector<std::string> no_markers;
  const auto write = [&](bool before, bool after) {
    TurnIds ids;
    std::string run;
    run.reserve(100);
    detail::ChatWriter writer(small(), no_markers, scratch.text(""), run, ids);
    writer.write("a \xC2\xA0");
    writer.write({detail::ChatPiece{{eot, before, after}, {}, 0}, detail::ChatPiece{{}, "\n", 0}});
    writer.write("\n b ");
    writer.finish();
    return small().decode(ids, SpecialTokens::keep);
  };
  CHECK(write(false, false) == "a \xC2\xA0<|eot_id|>\n\n b ");
  CHECK(write(true, false) == "a<|eot_id|>\n\n b ");
  CHECK(write(false, true) == "a \xC2\xA0<|eot_id|>b ");
}

TEST_CASE("Every known family can be read, and every one that has marks is known", "[text]") {
  for (const detail::ChatFamily& family : detail::chat_families) {
    CAPTURE(family.name);
    CHECK(chat_layout(family.name, "test").name == family.name);
  }
  for (const detail::ChatMarks& marks : detail::chat_marks) {
    CAPTURE(marks.family);
    CHECK_FALSE(marks.all.empty());
    CHECK_NOTHROW(chat_layout(marks.family, "test"));
  }
  CHECK(chat_layout("qwen3-no-think", "").open == "<|im_start|>assistant\n<think>\n\n</think>\n\n");
  CHECK(chat_layout("gpt-oss-final", "").open == "<|start|>assistant<|channel|>final<|message|>");
}

TEST_CASE("A template is known however it is laid out", "[text]") {
  const std::string turns = turn_of_llama3, open = open_of_llama3;
  CHECK(of_template(turns + open).name == "llama-3");
  std::string other = turns + "\n" + open + "\n";
  for (std::size_t at; (at = other.find("{%")) != std::string::npos;) other.replace(at, 2, "\n  {\x01-");
  for (std::size_t at; (at = other.find("{\x01")) != std::string::npos;) other.replace(at, 2, "{%");
  for (std::size_t at; (at = other.find("message['content'] | trim")) != std::string::npos;) {
    other.replace(at, 25, "message.content|trim");
  }
  std::replace(other.begin(), other.end(), '\'', '"');
  CHECK(of_template("{# Llama\n #}\n" + other, "<|begin_of_text|>").name == "llama-3");
}

TEST_CASE("A template that is not quite a family's is refused, with what to do", "[text][law5]") {
  const std::string turns = turn_of_llama3, open = open_of_llama3;
  const auto check = [](const std::string& text, std::optional<std::string> bos = {}) {
    CAPTURE(text);
    check_refused([&] { (void)of_template(text, bos); }, Code::unsupported,
                  "tokenizer_config.json: chat_template: expected the chat template of a known family, or \"chat\" in "
                  "team.json (docs/team.md), by name (none, chatml, ");
  };
  check("");
  check("{{ messages }}");
  check(turns);                                                  // no header of the answer
  check(turns + "\n\n" + open);                                  // a newline that is written
  check("Hello! " + turns + open);                               // and other text
  check("{% if tools %}{{ tools }}{% endif %}" + turns + open);  // a variant with tools
  check(turns + "{{ '<|python_tag|>' }}" + open);                // a token that the format does not have
  check(turns + open, "<s>");                                    // another BOS
  std::string lower = turns + open;
  lower.replace(lower.find("| trim"), 6, "| lower");
  check(lower);
  check(
      std::string("{{bos_token}}{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + "
                  "message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}"
                  "{{ '<|im_start|>assistant\\n' }}{% endif %}"));
  const std::string big(2 << 20, ' ');
  check_refused([&] { (void)of_template(big); }, Code::limit_exceeded,
                "a template of at most 1 MiB, found 2097152 bytes");
}

TEST_CASE("A template that Jinja would refuse is read to its end", "[text][law5]") {
  for (const char* text : {"{",        "{{",        "{%", "{#",        "{# #",         "{{ 'a", "{{ \"\\",
                           "{{-",      "{%-",       "}}", "%}",        "{{}}{%%}{##}", "{{ x.", "{{ '<|",
                           "{% '<|a|", "{{ x.role", "\n", "{{ a }}\n", "{{-}}",        "{#-#}", "{#}"}) {
    CAPTURE(text);
    check_refused([&] { (void)of_template(text); }, Code::unsupported, "known family");
  }
  std::string all;
  for (int i = 0; i < 100'000; ++i) all += i % 7 == 0 ? "{{" : i % 5 == 0 ? "'<|" : i % 3 == 0 ? "%}" : " x.role\n";
  check_refused([&] { (void)of_template(all); }, Code::unsupported, "known family");
}

TEST_CASE("A checkpoint's folder says its template in one of three ways, or not at all", "[text][law5]") {
  const ChatFolder folder;
  CHECK_FALSE(find_chat_template(folder.path()));
  folder.write("tokenizer_config.json", R"({"bos_token": "<s>", "chat_template": null})");
  CHECK_FALSE(find_chat_template(folder.path()));

  folder.write("tokenizer_config.json",
               R"({"bos_token": {"content": "<s>", "lstrip": false}, "chat_template": "one"})");
  auto found = find_chat_template(folder.path());
  REQUIRE(found);
  CHECK(found->text == "one");
  CHECK(found->bos == "<s>");
  CHECK_FALSE(found->eos);
  CHECK(found->where.ends_with("tokenizer_config.json: chat_template"));

  folder.write("tokenizer_config.json", R"({"eos_token": "</s>", "chat_template": [
    {"name": "tool_use", "template": "two"}, {"name": "default", "template": "three"}]})");
  found = find_chat_template(folder.path());
  REQUIRE(found);
  CHECK(found->text == "three");
  CHECK(found->where.ends_with("tokenizer_config.json: chat_template[1].template"));

  folder.write("chat_template.jinja", "four");
  found = find_chat_template(folder.path());
  REQUIRE(found);
  CHECK(found->text == "four");
  CHECK(found->eos == "</s>");
  CHECK(found->where.ends_with("chat_template.jinja"));
  std::filesystem::remove(folder.path() / "chat_template.jinja");

  struct Row {
    const char* file;
    Code code;
    const char* says;
  };
  for (const Row& row :
       {Row{R"({"chat_template": 3})", Code::malformed, "chat_template: expected a string, found 3"},
        Row{R"({"chat_template": [{"name": "rag", "template": "x"}]})", Code::unsupported,
            "chat_template: expected a template named default"},
        Row{R"({"chat_template": [{"name": "default", "template": "x"}, {"name": "default", "template": "y"}]})",
            Code::malformed, "expected one template of that name"},
        Row{R"({"chat_template": "x", "bos_token": 1})", Code::malformed, "bos_token: expected a string"},
        Row{"{", Code::malformed, "valid JSON"}}) {
    folder.write("tokenizer_config.json", row.file);
    check_refused([&] { (void)find_chat_template(folder.path()); }, row.code, row.says);
  }
}
