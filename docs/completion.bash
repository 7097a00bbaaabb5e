# Options of the console scripts behind Tab, as their --help lists them:  source docs/completion.bash
# (zsh: autoload -U bashcompinit && bashcompinit, first).

declare -gA _idc_options

_idc() {
  local command=${COMP_WORDS[0]} word=${COMP_WORDS[COMP_CWORD]}
  COMPREPLY=()
  [[ $word == -* ]] || return 0
  if [[ -z ${_idc_options[$command]-} ]]; then
    _idc_options[$command]=$("$command" --help 2>/dev/null | grep -oE -- '--[a-z][A-Za-z0-9_.-]*[A-Za-z0-9]' | sort -u)
  fi
  mapfile -t COMPREPLY < <(compgen -W "${_idc_options[$command]}" -- "$word")
}

# Those that are installed; files behind all that is no option.
while read -r _idc_name; do
  complete -o default -F _idc "$_idc_name"
done < <(compgen -c idc- | sort -u)
unset _idc_name
