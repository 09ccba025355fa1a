// libFuzzer: any bytes are a chat template that is a family's, or not; a declared chat format whose conversations have
// its tokens and no others, or an Error; and contents.
// clang++ -std=c++20 -O1 -g -fsanitize=fuzzer,address,undefined -DFINTEAM_TEST_DATA='"tests"' -Iinclude
// tests/fuzz/chat_fuzz.cpp -lpcre2-8 -lutf8proc && ./a.out -max_total_time=60 tests/refused
#include <finteam/text/chat.hpp>
#include <finteam/text/chat_recognition.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

using namespace finteam;

namespace {

void write(const ChatFormat& format, const Tokenizer& tokenizer, std::string_view content) {
  ChatFormat::Scratch scratch = format.scratch(tokenizer, 4096);
  std::vector<std::int32_t> ids;
  const Message messages[] = {{ChatRole::user, content}, {ChatRole::assistant, content}, {ChatRole::user, content}};
  format.encode(tokenizer, scratch, messages, ids);
  if (ids.size() > format.max_ids(messages)) __builtin_trap();
  std::vector<std::int32_t> harmless;
  const Message same[] = {{ChatRole::user, "x"}, {ChatRole::assistant, "x"}, {ChatRole::user, "x"}};
  format.encode(tokenizer, scratch, same, harmless);
  const auto structure = [&](const std::vector<std::int32_t>& all) {
    std::size_t n = 0;
    for (const std::int32_t id : all) n += tokenizer.kind(id) != TokenKind::ordinary ? 1 : 0;
    return n;
  };
  const bool may_vanish = format.layout().user.empty_is_none || format.layout().assistant.empty_is_none;
  if (!may_vanish && structure(ids) != structure(harmless)) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  static const Tokenizer tokenizer =
      Tokenizer::open(std::filesystem::path(FINTEAM_TEST_DATA) / "goldens" / "tokenizer" / "llama3.json");
  static const ChatFormat llama3 = ChatFormat::llama3(tokenizer);
  const auto attempt = [](auto&& what) {
    try {
      what();
    } catch (const Error& error) {
      if (std::string_view(error.what()).size() > 2000) __builtin_trap();
    }
  };
  attempt([&] { (void)recognise_chat({"template", std::string(text), {}, {}}); });
  attempt([&] { write(llama3, tokenizer, text); });
  attempt([&] {
    const Json json = parse_json(text, "chat", {.depth = 16, .values = 20'000, .bytes = 1 << 20});
    const ChatFormat format(chat_layout(JsonView(json, "chat")), tokenizer);
    write(format, tokenizer, "Rates rose. <|eot_id|>");
  });
  return 0;
}
