#!/usr/bin/env bash
# Makes target/dist/mlctl-VERSION-TRIPLE.tar.gz: mlctl, the services, playbooks and an mlctl.yaml that builds nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
cargo=${CARGO:-cargo}

# One by one, as a deploy builds them: together, cargo would choose other features and build everything anew.
for package in mlctl $(sed -nE 's#.*run: \[cargo, build, --release, -p, ([a-z-]+)\].*#\1#p' mlctl.yaml); do
	"$cargo" build --release --quiet -p "$package"
done
version=$(target/release/mlctl version | awk '{print $2}')
triple=$(rustc -vV | sed -n 's/^host: //p')
name=mlctl-$version-$triple
folder=target/dist/$name
rm -rf "$folder"
mkdir -p "$folder"/{bin,services}

install -m 755 target/release/mlctl "$folder/mlctl"
# The same file without the commands that build; artifacts lie in bin/.
sed -E 's#run: \[cargo, build[^]]*\]#run: []#; s#artifact: target/release/#artifact: bin/#' mlctl.yaml >"$folder/mlctl.yaml"
sed -nE 's#.*artifact: target/release/([a-z-]+).*#\1#p' mlctl.yaml | sort -u | while read -r service; do
	install -m 755 "target/release/$service" "$folder/bin/$service"
	if [[ -d services/$service/migrations ]]; then
		mkdir -p "$folder/services/$service"
		cp -r "services/$service/migrations" "$folder/services/$service/"
	fi
done
cp -r playbooks "$folder/"
for file in README.md CHANGELOG.md docs; do
	[[ ! -e $file ]] || cp -r "$file" "$folder/"
done

# An archive that its own mlctl refuses is no release.
(cd "$folder" && ./mlctl config validate --quiet >/dev/null)
tar -C target/dist -czf "target/dist/$name.tar.gz" "$name"
(cd target/dist && sha256sum "$name.tar.gz" >"$name.tar.gz.sha256")
echo "target/dist/$name.tar.gz"
