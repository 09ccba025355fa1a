// How fast is each product of a block, at 1, 3, 8 and 512 rows, a low-bit difference to one, and attention over a long
// cache?
// Weights and caches come from memory, as in a model: copies take turns. "products" is all products of a model's
// blocks together, its time the sum of their times.
#include "model.hpp"
#include "shape.hpp"

#include <set>

namespace bench {
namespace {

/// The blocks' products together, at one number of rows: sums over the rows of the single products.
struct Sum {
  double bytes = 0, flops = 0, seconds = 0, read = 0, peak = 0;
  std::set<std::string> dies;

  void add(double times, const Json& row) {
    const auto of = [&](const char* field) { return row[field].get<double>(); };
    const double s = times * of("seconds_per_step");
    bytes += times * of("bytes_per_step"), flops += times * of("flops_per_step"), seconds += s;
    read += s * of("read_gbps"), peak += s * of("peak_gops");
    dies.insert(row["die"].get<std::string>());
  }
  [[nodiscard]] Die die() const {
    return dies == std::set<std::string>{"same"}  ? Die::same
           : dies == std::set<std::string>{"two"} ? Die::two
                                                  : Die::moved;
  }
};

void products(Run& run, const std::vector<index_t>& all_rows) {
  const auto c = shape(run.options.shape);
  std::vector<Sum> sums(all_rows.size());
  auto list = block_products(c);
  list.push_back(head_product(c));
  for (const Product& p : list) {
    const bool head = p.name == head_product(c).name;
    ProductBench bench(run, p, run.options.weights, head ? 8 : *std::max_element(all_rows.begin(), all_rows.end()));
    for (std::size_t i = 0; i < all_rows.size(); ++i) {
      const index_t rows = all_rows[i];
      if (head && rows > 8) continue;  // nobody asks for the logits of a whole prompt
      bench.check(rows);
      measure(run, peak_of(run.options.weights),
              {{.work = {.name = p.name + " " + std::to_string(p.n) + "x" + std::to_string(p.k),
                         .sequences = rows,
                         .tokens = static_cast<double>(rows),
                         .bytes = packed_bytes(p.n, p.k, run.options.weights),
                         .flops = 2.0 * static_cast<double>(p.n * p.k * rows)},
                .part = [&](index_t) { bench.run(rows); }}},
              cold_bytes(run));
      if (!head) sums[i].add(static_cast<double>(c.layers), run.rows.back());
    }
  }
  for (std::size_t i = 0; i < all_rows.size(); ++i) {
    const Sum& s = sums[i];
    const Samples sample = {{s.seconds, s.read / s.seconds, s.peak / s.seconds, s.die()}};
    run.add(row(run,
                {.name = "products",
                 .sequences = all_rows[i],
                 .tokens = static_cast<double>(all_rows[i]),
                 .bytes = s.bytes,
                 .flops = s.flops},
                sample));
  }
}

/// A low-bit difference to o_proj, which each fine-tuned role of a shared base reads beside it.
void differences(Run& run, const std::vector<index_t>& all_rows) {
  const Product p = block_products(shape(run.options.shape))[1];
  for (const std::string& format : delta_formats()) {
    ProductBench bench(run, p, format, *std::max_element(all_rows.begin(), all_rows.end()));
    for (const index_t rows : all_rows) {
      bench.check(rows);
      measure(run, peak_of(format),
              {{.work = {.name = p.name + " difference, " + format,
                         .sequences = rows,
                         .tokens = static_cast<double>(rows),
                         .bytes = packed_bytes(p.n, p.k, format),
                         .flops = 2.0 * static_cast<double>(p.n * p.k * rows)},
                .part = [&](index_t) { bench.run(rows); }}},
              cold_bytes(run));
    }
  }
}

/// The last `rows` of `tokens` tokens, in one layer.
void attention(Run& run, const std::string& name, index_t tokens, index_t rows) {
  const auto c = shape(run.options.shape);
  AttentionBench bench(run, tokens);
  const double t = static_cast<double>(tokens), r = static_cast<double>(rows);
  const std::string& cache = run.options.cache;
  measure(run, peak_of(cache == "f32" ? "stored" : cache),
          {{.work = {.name = name,
                     .sequences = 1,
                     .tokens = r,
                     .bytes = cache_bytes(c, run.options.cache) * t,
                     .flops = attention_flops(c, r * t - r * (r - 1) / 2),
                     .more = {{"context", tokens}, {"prompt", rows}, {"cache", run.options.cache}}},
            .part = [&](index_t) { bench.run(rows); }}},
          1e18);
}

}  // namespace

void kernels(Run& run) {
  Run part{run.options, run.pool};
  part.options.seconds /= 8;  // there are many rows
  part.options.peer.clear();
  const auto rows =
      run.options.sequences != 0 ? std::vector<index_t>{run.options.sequences} : std::vector<index_t>{1, 3, 8, 512};
  products(part, rows);
  if (run.options.weights == "int4") differences(part, rows);
  attention(part, "attention, decode", 8192, 1);
  attention(part, "attention, prefill", 2048, 2048);
  for (Json& row : part.rows) run.rows.push_back(std::move(row));
}

}  // namespace bench
