// Fuzzes the tokenizer: bytes as a tokenizer.json, changes to a good one, and texts for it.
// clang++ -std=c++20 -g -O1 -fsanitize=fuzzer,address,undefined -Iinclude tests/fuzz/tokenizer_fuzz.cpp -lpcre2-8
//   -lutf8proc -DFINTEAM_TEST_DATA='"tests"' -o tokenizer_fuzz && ./tokenizer_fuzz -max_total_time=60 -max_len=4096
#include <finteam/text/chat.hpp>
#include <finteam/text/stop.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

namespace {
using namespace finteam;

const std::string& good_file(std::size_t i) {
  static const std::vector<std::string> files = [] {
    std::vector<std::string> all;
    for (const char* name : {"llama3.json", "parity/sp.json", "parity/unigram.json", "parity/word_piece.json"}) {
      std::ifstream file(std::filesystem::path(FINTEAM_TEST_DATA) / "goldens/tokenizer" / name, std::ios::binary);
      all.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
    return all;
  }();
  return files[i];
}

/// Encodes, decodes, streams; traps where law 5 or a bound fails, or (exact) the round trip.
void use(const Tokenizer& tokenizer, std::string_view text, bool exact) {
  Tokenizer::Scratch scratch = tokenizer.scratch(4096);
  std::vector<std::int32_t> ids;
  tokenizer.encode(text, scratch, ids);
  for (const std::int32_t id : ids) {
    if (tokenizer.kind(id) != TokenKind::ordinary && tokenizer.unknown() != id) __builtin_trap();
  }
  if (ids.size() > tokenizer.max_ids(text.size())) __builtin_trap();
  const std::string decoded = tokenizer.decode(ids, SpecialTokens::keep);
  if (exact && (ids.size() > text.size() || decoded != text)) __builtin_trap();
  StreamDecoder stream(tokenizer, SpecialTokens::keep);
  StopMatcher stop({"ab", "\n\n"}, stream.max_piece_bytes());
  std::string shown;
  const auto show = [&](std::string_view piece) {
    if (find_invalid_utf8(piece) != piece.size()) __builtin_trap();
    shown += stop.push(piece);
  };
  for (const std::int32_t id : ids) show(stream.push(id));
  show(stream.flush());
  shown += stop.flush();
  if (decoded.substr(0, shown.size()) != shown) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 4) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data) + 4, size - 4);
  try {
    if (data[0] % 4 == 0) {
      use(Tokenizer::parse(input, "fuzz"), input, false);
    } else if (data[0] % 4 == 1) {  // bytes of a good file overwritten at a place that the input chooses
      std::string file = good_file(data[3] / 64);
      const std::size_t at = (data[1] | data[2] << 8) % (file.size() - 64);
      file.replace(at, data[3] % 32, input.substr(0, 32));
      use(Tokenizer::parse(file, "fuzz"), input, false);
    } else if (data[0] % 4 == 2) {  // a pattern
      const std::size_t cut = std::min<std::size_t>(data[1], input.size());
      const Pattern pattern(input.substr(0, cut), "fuzz",
                            data[2] % 2 == 0 ? PatternEngine::fastest : PatternEngine::interpreter);
      const std::string_view text = input.substr(cut, find_invalid_utf8(input.substr(cut)));
      Pattern::Scratch scratch;
      Pattern::Search search(pattern, scratch, text);
      std::size_t before = 0;
      while (search.next()) {
        if (search.begin() < before || search.end() <= search.begin() || search.end() > text.size()) __builtin_trap();
        before = search.end();
      }
    } else {
      static const Tokenizer tokenizer = Tokenizer::parse(good_file(0), "good");
      use(tokenizer, input, true);
      static const ChatFormat format = ChatFormat::llama3(tokenizer);
      ChatFormat::Scratch scratch = format.scratch(tokenizer, 4096);
      std::vector<std::int32_t> ids;
      const Message message{ChatRole::user, input};
      format.encode(tokenizer, scratch, {&message, 1}, ids);
      if (ids.size() > format.max_ids({&message, 1})) __builtin_trap();
    }
  } catch (const Error&) {
  }
  return 0;
}
