# Waits for the end of its input, which comes when the program that writes it is gone, however that went. What was named and not taken back
# is then ended and removed: process groups by SIGTERM, after three seconds by SIGKILL, and folders.
groups=
folders=
newline='
'

# without LIST WORD: the lines of the list but that one.
without() {
    printf '%s' "$1" | while IFS= read -r line; do
        [ "$line" = "$2" ] || printf '%s\n' "$line"
    done
}

while IFS=' ' read -r verb what; do
    case $verb in
    group) groups="$groups$what$newline" ;;
    ended) groups="$(without "$groups" "$what")$newline" ;;
    folder) folders="$folders$what$newline" ;;
    removed) folders="$(without "$folders" "$what")$newline" ;;
    esac
done

for group in $groups; do kill -s TERM -- "-$group" 2>/dev/null; done
tries=30
for group in $groups; do
    while kill -s 0 -- "-$group" 2>/dev/null; do
        if [ "$tries" -le 0 ]; then
            kill -s KILL -- "-$group" 2>/dev/null
            break
        fi
        tries=$((tries - 1))
        sleep 0.1
    done
done
printf '%s' "$folders" | while IFS= read -r folder; do
    [ -z "$folder" ] || rm -rf -- "$folder"
done
