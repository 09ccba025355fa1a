// The marks by which a checkpoint's own chat template is known to be a family's: pieces of its text, as TemplateReader
// leaves it. Not here: the families' formats (chat_families.hpp), the comparison (chat_recognition.hpp).
#pragma once

#include <finteam/core/config.hpp>

#include <string_view>

namespace finteam::inline FINTEAM_ABI::detail {

struct ChatMarks {
  std::string_view family;
  std::string_view all;       ///< a line each, all in the family's templates
  std::string_view never;     ///< a line each, none in them
  std::string_view bos, eos;  ///< what the template's bos_token and eos_token must be; empty: it writes none
  std::string_view aside{};   ///< a line each: tokens of turns with tools, which the format does not have
  std::string_view raw{};     ///< what the template writes outside blocks
};

/// No template has the marks of two.
inline constexpr ChatMarks chat_marks[] = {
    {"chatml",
     R"({%for message in messages%}{{'<|im_start|>'+message['role']+'\n'+message['content']+'<|im_end|>'+'\n'}}{%endfor%}
{{'<|im_start|>assistant\n'}})",
     "bos_token\nsystem_message\nthink\ntools\nis not defined\nloop\n[0]", "", ""},
    {"qwen2",
     R"({{'<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n'}}
{{'<|im_start|>'+message['role']+'\n'+message['content']+'<|im_end|>'+'\n'}}
{%if loop.first and messages[0]['role']!='system'%}
{{'<|im_start|>assistant\n'}})",
     "bos_token\nthink\ntools", "", ""},
    {"qwen1.5",
     R"({{'<|im_start|>system\nYou are a helpful assistant<|im_end|>\n'}}
{{'<|im_start|>'+message['role']+'\n'+message['content']+'<|im_end|>'+'\n'}}
{%if loop.first and messages[0]['role']!='system'%}
{{'<|im_start|>assistant\n'}})",
     "bos_token\nthink\ntools", "", ""},
    {"qwen2.5",
     R"({{'<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n'}}
{{'<|im_start|>system\n'+messages[0]['content']+'<|im_end|>\n'}}
(message['role']=='system'and not loop.first)
{{'<|im_start|>'+message['role']+'\n'+message['content']+'<|im_end|>'+'\n'}}
{{'<|im_start|>assistant\n'}})",
     "bos_token\nthink\nvision", "", ""},
    {"qwen3",
     R"({{'<|im_start|>system\n'+messages[0]['content']+'<|im_end|>\n'}}
(message['role']=='system'and not loop.first)
.split('</think>')[-1].lstrip('\n')
{%if loop.index0>ns.last_query_index%}
{%else%}{{'<|im_start|>'+message['role']+'\n'+content}}{%endif%}
{{'<|im_start|>assistant\n'}}{%if enable_thinking is defined and enable_thinking is false%}{{'<think>\n\n</think>\n\n'}})",
     "bos_token\nYou are a\nYou are Q\nvision\npreserve_thinking", "", ""},
    {"qwen3-instruct",
     R"({%else%}{%if messages[0]['role']=='system'%}{{'<|im_start|>system\n'+messages[0]['content']+'<|im_end|>\n'}}{%endif%}{%endif%}{%for message
(message['role']=='system'and not loop.first)%}{{'<|im_start|>'+message['role']+'\n'+content+'<|im_end|>'+'\n'}}
{{'<|im_start|>'+message['role']+'\n'+content}}{%if message.tool_calls%}
{{'<|im_start|>assistant\n'}})",
     "bos_token\nthink\nYou are a\nYou are Q\nvision", "", ""},
    {"smollm3",
     R"({{'Knowledge Cutoff Date: June 2025\n'}}
strftime_now('%d %B %Y')
{{'Reasoning Mode: '+reasoning_mode+'\n\n'}}{{'## Custom Instructions\n\n'}}{%if custom_instructions%}{{custom_instructions+'\n\n'}}
'/system_override'in system_message
{{'\n\n'}}{{'<|im_end|>\n'}}{%endif%}{%endif%}
'<|im_start|>assistant\n'+content.lstrip('\n')+'<|im_end|>\n')",
     "bos_token", "", ""},
    {"llama-2",
     R"({%set system_message=false%}
{%set content='<<SYS>>\n'+system_message+'\n<</SYS>>\n\n'+message['content']%}
{{bos_token+'[INST] '+content|trim+' [/INST]'}}
{{' '+content|trim+' '+eos_token}})",
     "'<<SYS>>'in\n'<<SYS>>' in", "<s>", "</s>"},
    {"llama-3",
     R"({%set content='<|start_header_id|>'+message['role']+'<|end_header_id|>\n\n'+message['content']|trim+'<|eot_id|>'%}
{%if loop.index0==0%}{%set content=bos_token+content%}{%endif%}{{content}}
{{'<|start_header_id|>assistant<|end_header_id|>\n\n'}})",
     "tools\ndate\nsystem", "<|begin_of_text|>", ""},
    {"llama-3.1",
     R"({{bos_token}}
{%set date_string='26 Jul 2024'%}
{%set system_message=messages[0]['content']|trim%}
{{'Cutting Knowledge Date: December 2023\n'}}{{'Today Date: '+date_string+'\n\n'}}
{{'<|start_header_id|>'+message['role']+'<|end_header_id|>\n\n'+message['content']|trim+'<|eot_id|>'}}
{{'<|start_header_id|>assistant<|end_header_id|>\n\n'}}{%endif%})",
     "strftime_now", "<|begin_of_text|>", "", "<|python_tag|>\n<|eom_id|>"},
    {"llama-3.2",
     R"({{bos_token}}
{%set date_string=strftime_now('%d %b %Y')%}{%else%}{%set date_string='26 Jul 2024'%}
{%set system_message=messages[0]['content']|trim%}
{{'Cutting Knowledge Date: December 2023\n'}}{{'Today Date: '+date_string+'\n\n'}}
{{'<|start_header_id|>'+message['role']+'<|end_header_id|>\n\n'+message['content']|trim+'<|eot_id|>'}}
{{'<|start_header_id|>assistant<|end_header_id|>\n\n'}}{%endif%})",
     "image", "<|begin_of_text|>", "", "<|python_tag|>\n<|eom_id|>"},
    {"mistral-v1",
     R"({%if loop.first and system_message is defined%}{{' [INST] '+system_message+'\n\n'+message['content']+' [/INST]'}}
{{' [INST] '+message['content']+' [/INST]'}}
{{' '+message['content']+eos_token}})",
     "tools", "<s>", "</s>"},
    {"mistral-v1-early",
     R"({{bos_token}}
{{'[INST] '+message['content']+' [/INST]'}}
{{message['content']+eos_token}}{%else%}{{raise_exception()",
     "system", "<s>", "</s>"},
    {"mistral-v3",
     R"({%if loop.last and system_message is defined%}{{'[INST] '+system_message+'\n\n'+message['content']+'[/INST]'}}
{{'[INST] '+message['content']+'[/INST]'}}
{{' '+message['content']|trim+eos_token}})",
     "SYSTEM_PROMPT", "<s>", "</s>"},
    {"mistral-v3-unstripped",
     R"({%if loop.last and system_message is defined%}{{'[INST] '+system_message+'\n\n'+message['content']+'[/INST]'}}
{{'[INST] '+message['content']+'[/INST]'}}
{{' '+message['content']+eos_token}})",
     "SYSTEM_PROMPT", "<s>", "</s>"},
    {"mistral-v3-tekken",
     R"({%if loop.last and system_message is defined%}{{'[INST]'+system_message+'\n\n'+message['content']+'[/INST]'}}
{{'[INST]'+message['content']+'[/INST]'}}
{{message['content']+eos_token}})",
     "SYSTEM_PROMPT", "<s>", "</s>"},
    {"phi-3",
     R"({%if message['role']=='system'%}{{'<|system|>\n'+message['content']+'<|end|>\n'}}
{{'<|user|>\n'+message['content']+'<|end|>\n'}}
{{'<|assistant|>\n'+message['content']+'<|end|>\n'}}
{{'<|assistant|>\n'}})",
     "bos_token\ntools", "", ""},
    {"phi-3.5",
     R"({%if message['role']=='system'and message['content']%}{{'<|system|>\n'+message['content']+'<|end|>\n'}}
{{'<|user|>\n'+message['content']+'<|end|>\n'}}
{{'<|assistant|>\n'+message['content']+'<|end|>\n'}}
{{'<|assistant|>\n'}})",
     "bos_token\ntools", "", ""},
    {"phi-4",
     R"({{'<|im_start|>system<|im_sep|>'+message['content']+'<|im_end|>'}}
{{'<|im_start|>user<|im_sep|>'+message['content']+'<|im_end|>'}}
{{'<|im_start|>assistant<|im_sep|>'+message['content']+'<|im_end|>'}}
{{'<|im_start|>assistant<|im_sep|>'}})",
     "bos_token\ntools\nthink", "", ""},
    {"phi-4-early",
     R"({{'<|im_start|>system<|im_sep|>'+message['content']+'<|im_end|>'}}
{{'<|im_start|>user<|im_sep|>'+message['content']+'<|im_end|><|im_start|>assistant<|im_sep|>'}}
{{message['content']+'<|im_end|>'}})",
     "bos_token\nadd_generation_prompt", "", ""},
    {"gemma-2",
     R"({{bos_token}}
{%if messages[0]['role']=='system'%}{{raise_exception(
{{'<start_of_turn>'+role+'\n'+message['content']|trim+'<end_of_turn>\n'}}
{{'<start_of_turn>model\n'}})",
     "first_user_prefix\ntools", "<bos>", ""},
    {"gemma-3",
     R"({{bos_token}}
{%set first_user_prefix=messages[0]['content']+'\n\n'%}
{{'<start_of_turn>'+role+'\n'+(first_user_prefix if loop.first else'')}}
{{message['content']|trim}}
{{'<end_of_turn>\n'}}
{{'<start_of_turn>model\n'}})",
     "tools", "<bos>", ""},
    {"olmo-2",
     R"({{bos_token}}
{{'<|system|>\n'+message['content']+'\n'}}
{{'<|user|>\n'+message['content']+'\n'}}
{%if not loop.last%}{{'<|assistant|>\n'+message['content']+eos_token+'\n'}}{%else%}{{'<|assistant|>\n'+message['content']+eos_token}}
{{'<|assistant|>\n'}})",
     "tools\nfunction", "<|endoftext|>", "<|endoftext|>"},
    {"gpt-oss",
     R"({%set model_identity='You are ChatGPT, a large language model trained by OpenAI.'%}
{{'Knowledge cutoff: 2024-06\n'}}{{'Current date: '+strftime_now('%Y-%m-%d')+'\n\n'}}
{%set reasoning_effort='medium'%}
{{'# Valid channels: analysis, commentary, final. Channel must be included for every message.'}}
{{'# Instructions\n\n'}}{{developer_message}}{{'\n\n'}}
{{'<|start|>assistant<|channel|>final<|message|>'+message['content']+'<|end|>'}}
{{'<|start|>user<|message|>'+message['content']+'<|end|>'}})",
     "bos_token", "", "", "<|call|>\n<|final|>", "<|start|>assistant"},
};

}  // namespace finteam::inline FINTEAM_ABI::detail
