#!/usr/bin/env bash
# Makes the clips of this folder by ffmpeg (5.1 was used), with what it shows of them: frames 0 and 2, stacked.
set -euo pipefail
cd "$(dirname "$0")"
source=(-v error -y -f lavfi -i testsrc2=size=64x48:rate=24:duration=0.25)
h264=(-c:v libx264 -pix_fmt yuv420p)

ffmpeg "${source[@]}" "${h264[@]}" -movflags +faststart plain.mp4
ffmpeg -v error -y -i plain.mp4 -c copy -metadata:s:v rotate=90 rotated90.mp4
ffmpeg -v error -y -i plain.mp4 -c copy -metadata:s:v rotate=180 rotated180.mp4
ffmpeg -v error -y -i plain.mp4 -c copy -metadata:s:v rotate=270 rotated270.mp4
ffmpeg "${source[@]}" -c:v libx265 -pix_fmt yuv420p10le -x265-params log-level=none ten_bit.mp4
ffmpeg "${source[@]}" "${h264[@]}" -flags +ildct+ilme -top 1 -vf interlace=lowpass=off interlaced.mp4
ffmpeg "${source[@]}" -c:v libx264 -vf scale=out_color_matrix=bt709:out_range=full -pix_fmt yuv420p \
  -color_range pc -colorspace bt709 full_range.mp4
ffmpeg "${source[@]}" -c:v ffv1 -pix_fmt yuv420p -vf scale=37:27,setsar=1 odd_size.mkv
ffmpeg "${source[@]}" "${h264[@]}" -vf setsar=2/1 wide_pixels.mp4
ffmpeg "${source[@]}" -c:v qtrle -vf "format=rgba,geq=r='r(X,Y)':g='g(X,Y)':b='b(X,Y)':a='4*X'" alpha.mov
ffmpeg "${source[@]}" "${h264[@]}" -vf negate negative.mp4
ffmpeg -v error -y -i negative.mp4 -i plain.mp4 -map 0:v -map 1:v -c copy -disposition:v:0 0 \
  -disposition:v:1 default two_tracks.mkv
ffmpeg "${source[@]}" "${h264[@]}" -vf scale=32:24 -output_ts_offset 0.25 smaller.ts
ffmpeg -v error -y -i plain.mp4 -c copy larger.ts
cat larger.ts smaller.ts > other_size_midway.ts
rm larger.ts smaller.ts negative.mp4
ffmpeg -v error -y -f lavfi -i sine=duration=0.1 -c:a aac sound.m4a

for clip in plain.mp4 rotated90.mp4 rotated180.mp4 rotated270.mp4 ten_bit.mp4 interlaced.mp4 full_range.mp4 odd_size.mkv; do
  ffmpeg -v error -y -i "$clip" -vsync passthrough -vf "format=rgb24,select=eq(n\,0)+eq(n\,2),tile=1x2" \
    -frames:v 1 -update 1 "expected/${clip%.*}.png"
done
