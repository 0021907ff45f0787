# bash completion for promisefs. The command itself knows what may stand where; this only asks it.

_promisefs() {
	local cur=${COMP_WORDS[COMP_CWORD]} line name end
	[[ $cur != "=" ]] || cur= # NAME=KEY: three words for bash
	COMPREPLY=()
	while IFS= read -r line; do
		case $line in
		@files)
			compopt -o filenames
			while IFS= read -r name; do COMPREPLY+=("$name"); done < <(compgen -f -- "$cur")
			;;
		@dirs)
			compopt -o filenames
			while IFS= read -r name; do COMPREPLY+=("$name"); done < <(compgen -d -- "$cur")
			;;
		"@below "*)
			compopt -o nospace
			while IFS= read -r name; do
				[[ -d $name ]] && end=/ || end=' '
				COMPREPLY+=("$(printf %q "${name#"${line#@below }"/}")$end")
			done < <(compgen -f -- "${line#@below }/$cur")
			;;
		*= | own/ | ref/ | mut/)
			compopt -o nospace
			COMPREPLY+=("$line")
			;;
		*)
			COMPREPLY+=("$line")
			;;
		esac
	done < <("${COMP_WORDS[0]}" --complete "$COMP_CWORD" "${COMP_WORDS[@]}" 2>/dev/null)
}
complete -F _promisefs promisefs
